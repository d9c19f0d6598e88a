"""The pages in a real browser, on what a replay left behind: seen as people see them, with mouse and with keys."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx
import pytest

from sluice.proxy.access.keys import make_key
from tests.dashboard.conftest import OWNER, Served
from tests.dashboard.traffic import MODELS, Tape, replay, shipped, spread
from tests.proxy.servers import reading_twice

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

T = TypeVar("T")
PAGES = ("", "/conversations", "/backends", "/searches")
WAIT_S = 30.0
NAMELESS = """
return [...document.querySelectorAll("button, a, input, select")]
  .filter((one) => !(one.innerText || one.ariaLabel || one.labels?.length || one.querySelector("[aria-label]")))
  .map((one) => one.outerHTML)"""
ANSWER_SIZES = """
return performance.getEntriesByType("resource")
  .filter((one) => one.name.includes("/dashboard/api/"))
  .map((one) => one.decodedBodySize)"""
COUNT_LISTENERS = """
window.numListening = 0;
for (const [name, step] of [["addEventListener", 1], ["removeEventListener", -1]]) {
  const plain = window[name].bind(window);
  window[name] = (type, ...rest) => {
    if (type === "themechange") window.numListening += step;
    return plain(type, ...rest);
  };
}"""
ELSEWHERE = """
return performance.getEntriesByType("resource")
  .map((one) => one.name)
  .filter((name) => !name.startsWith(location.origin))"""


class Tab:
    """One tab of the browser, at a page of the dashboard."""

    def __init__(self, driver: Any, served: Served) -> None:
        self.driver = driver
        self._served = served

    def open(
        self, path: str = "", *, key: str = "", width: int = 1440, height: int = 900, scheme: str = "light"
    ) -> Tab:
        """Open a page as somebody who was not here before, and wait until it shows something."""
        driver = self.driver
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        driver.get(f"{self._served.url}/dashboard/static/favicon.svg")
        driver.execute_script("sessionStorage.clear(); localStorage.clear()")
        driver.get_log("browser")
        driver.get(f"{self._served.url}/dashboard{path}" + (f"#key={key}" if key else ""))
        self.until("return performance.getEntriesByName('sluice-shown').length > 0")
        return self

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, *arguments: Any) -> Any:
        """Wait until a script returns something true, and give that."""
        ends_at = time.monotonic() + WAIT_S
        while not (found := self.js(script, *arguments)):
            assert time.monotonic() < ends_at, f"{script!r} never came true; the page says: {self.text[:800]}"
            time.sleep(0.05)
        return found

    @property
    def text(self) -> str:
        return str(self.js("return document.body.innerText"))

    def says(self, text: str) -> None:
        self.until("return document.body.innerText.toLowerCase().includes(arguments[0].toLowerCase())", text)

    def click(self, selector: str) -> None:
        self.until("return document.querySelector(arguments[0])", selector)
        self.driver.find_element("css selector", selector).click()

    def press(self, *keys: str) -> None:
        """Press keys as a user does, wherever the focus is: an element that has it may be drawn anew meanwhile."""
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    @property
    def complaints(self) -> list[str]:
        """What the browser complained of: errors, and what the content policy kept out."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


@pytest.fixture
def tab(browser: Any) -> Callable[[Served], Tab]:
    browser.get_log("browser")
    return lambda served: Tab(browser, served)


def figures(served: Served, path: str) -> Any:
    headers = {"x-sluice-key": OWNER}
    return httpx.get(f"{served.url}/dashboard/api{path}", headers=headers, trust_env=False, timeout=30).json()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "Nothing has come through yet"),
        ("/conversations", "No conversations yet"),
        ("/backends", "No backend of your own"),
        ("/searches", "Code search is not set up"),
        ("/conversations/0f0f", "Not here"),
    ],
)
def test_an_empty_page_says_what_to_do(tab: Callable[[Served], Tab], empty: Served, path: str, says: str) -> None:
    page = tab(empty).open(path)
    page.says(says)
    if path != "/conversations/0f0f":  # there the browser tells of the 404
        assert page.complaints == []
    assert page.js(ELSEWHERE) == []


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("path", PAGES)
def test_no_page_is_wider_than_its_window(
    tab: Callable[[Served], Tab], replayed: Served, path: str, width: int
) -> None:
    page = tab(replayed).open(path, key=OWNER, width=width, height=844)
    assert page.js("return document.documentElement.scrollWidth") <= width
    assert page.js(NAMELESS) == []
    assert page.complaints == []


def test_the_overview_shows_what_the_meter_says(tab: Callable[[Served], Tab], replayed: Served) -> None:
    page = tab(replayed).open(key=OWNER)
    data = figures(replayed, "/overview")
    page.says(f"{data['totals']['num_turns']:,}")
    page.says(f"${data['totals']['saved']:.3f}")
    page.says("nothing was held out")
    assert page.js("return document.querySelectorAll('canvas').length") == 2
    for model in MODELS[:3]:
        page.says(model)
    for name in (data["by_tool"][0]["name"], data["by_kind"][0]["name"], data["files"][0]["name"]):
        page.says(name)
    assert data["epochs"]["cold"] > 0
    page.says("the provider's cache had expired")
    assert "NaN" not in page.text
    assert "undefined" not in page.text
    assert page.js("return location.hash") == "", "the key stays in no address"


def test_how_long_ago_something_was_is_told_anew(tab: Callable[[Served], Tab]) -> None:
    with Served() as served:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        headers = {"authorization": "Bearer u"}
        httpx.post(f"{served.url}/v1/chat/completions", json=body, headers=headers, trust_env=False, timeout=30)
        page = tab(served).open("/conversations")
        page.says("just now")
        page.js("const now = Date.now; Date.now = () => now() + 7_200_000")
        page.says("2 hr. ago")


def test_a_chart_that_is_gone_leaves_nothing_behind(tab: Callable[[Served], Tab], replayed: Served) -> None:
    page = tab(replayed).open("/conversations", key=OWNER)
    page.js(COUNT_LISTENERS)
    for _ in range(2):
        page.click("#nav a[href='/dashboard']")
        page.until("return document.querySelectorAll('canvas').length === 2 && window.numListening === 2")
        page.click("#nav a[href='/dashboard/conversations']")
        page.until("return window.numListening === 0")
    assert page.complaints == []


def test_a_chart_is_drawn_though_the_request_below_it_is_long_in_coming(
    tab: Callable[[Served], Tab], replayed: Served
) -> None:
    name = figures(replayed, "/conversations")["conversations"][0]["id"]
    page = tab(replayed).open("/conversations", key=OWNER)
    page.js(
        """const plain = window.fetch;
        window.fetch = async (...asked) => {
          if (String(asked[0]).endsWith("/request")) await new Promise((done) => setTimeout(done, 500));
          return plain(...asked);
        }"""
    )
    page.click(f"#c-{name}")
    page.says("Context over turns")
    page.until("return document.querySelectorAll('.chart canvas').length === 1")
    assert page.complaints == []


def test_the_list_is_walked_with_the_keyboard(tab: Callable[[Served], Tab], replayed: Served) -> None:
    from selenium.webdriver.common.keys import Keys

    page = tab(replayed).open("/conversations", key=OWNER)
    page.press(Keys.TAB)
    assert page.js("return document.activeElement.textContent") == "Skip to content"
    page.press(Keys.ENTER)
    assert page.js("return document.activeElement.id") == "content"
    first = figures(replayed, "/conversations")["conversations"]
    page.js("document.querySelector('tbody a').focus()")
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert page.js("return document.activeElement.id") == f"c-{first[1]['id']}"
    page.press(Keys.END)
    assert page.js("return document.activeElement.id") == f"c-{first[-1]['id']}"
    page.press(Keys.ENTER)
    page.says("Context over turns")
    assert page.js("return location.pathname").endswith(first[-1]["id"])
    page.driver.back()
    page.says("Newest first")


def test_the_list_is_searched_and_sorted(tab: Callable[[Served], Tab], replayed: Served) -> None:
    page = tab(replayed).open("/conversations", key=OWNER)
    field = page.driver.find_element("css selector", "#q")
    field.send_keys(MODELS[1])
    page.until("return document.querySelectorAll('tbody tr').length === 1")
    assert page.js("return new URLSearchParams(location.search).get('q')") == MODELS[1]
    assert page.js("return document.activeElement.id") == "q", "a list that is drawn anew takes no focus away"
    field.clear()
    field.send_keys("nothing like it")
    page.says("Nothing fits")


def test_a_dropped_span_is_opened_and_pinned(tab: Callable[[Served], Tab], replayed: Served) -> None:
    listed = figures(replayed, "/conversations")["conversations"]
    name = next(one["id"] for one in listed if one["model"] == MODELS[0])
    page = tab(replayed).open(f"/conversations/{name}", key=OWNER)
    page.says("spans dropped")
    page.click("details[data-dropped] > summary")
    page.click("details[open] .dropped .toggle")
    parts = [
        part
        for message in figures(replayed, f"/conversations/{name}/request")["messages"]
        for text in message["texts"]
        for part in text["parts"]
        if part["type"] == "dropped"
    ]
    page.says(parts[0]["text"].strip().split("\n")[0].strip()[:30])
    page.says(parts[0]["marker"])
    page.says(parts[0]["reason"])
    assert "score" in page.text
    page.click("details[open] .dropped .pin")
    page.says("Pinned: comes back with the next result")
    again = figures(replayed, f"/conversations/{name}/request")["messages"]
    assert json.dumps(again).count('"is_pinned": true') == 1
    page.driver.refresh()
    page.says("spans dropped")
    page.click("details[data-dropped] > summary")
    page.until("return [...document.querySelectorAll('.pin')].some((one) => one.textContent === 'Unpin')")
    page.js("[...document.querySelectorAll('.dropped .pin')].find((one) => one.textContent === 'Unpin').click()")
    page.says("Unpinned: may be dropped again")
    again = figures(replayed, f"/conversations/{name}/request")["messages"]
    assert json.dumps(again).count('"is_pinned": true') == 0
    page.click(".segmented .forwarded")
    assert page.js("return getComputedStyle(document.querySelector('details[open] .left')).display") == "none"
    assert page.complaints == []


def test_content_is_shown_for_the_key_that_is_typed(tab: Callable[[Served], Tab], replayed: Served) -> None:
    from selenium.webdriver.common.keys import Keys

    name = figures(replayed, "/conversations")["conversations"][0]["id"]
    page = tab(replayed).open(f"/conversations/{name}")
    page.says("The request itself needs a key")
    page.click("#key")
    page.press("a guess", Keys.ENTER)
    page.until("return document.getElementById('keyerror').textContent")
    page.js("document.getElementById('keyinput').value = ''")
    page.press(OWNER, Keys.ENTER)
    page.says("The last request")
    page.says("As the model saw it")
    page.click("#key")
    page.click("#keyforget")
    page.says("The request itself needs a key")
    assert OWNER not in page.js("return JSON.stringify(sessionStorage) + JSON.stringify(localStorage)")


def test_a_proxy_that_wants_keys_asks_for_one(tab: Callable[[Served], Tab]) -> None:
    from selenium.webdriver.common.keys import Keys

    key, text = make_key("ann")
    with Served(keys=(key,)) as served:
        page = tab(served).open()
        page.says("This proxy wants a key")
        assert "Saved" not in page.text
        page.click("main .primary")
        page.press(text, Keys.ENTER)
        page.says("Nothing has come through yet")
        assert page.js("return document.getElementById('key').textContent") == "ann"
        page.driver.refresh()
        page.says("Nothing has come through yet")


def test_the_theme_follows_the_system_until_one_is_chosen(tab: Callable[[Served], Tab], empty: Served) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    page = tab(empty)
    dark, light = page.open(scheme="dark").js(background), page.open(scheme="light").js(background)
    assert dark != light
    page.click("#theme")
    page.click("#theme")
    assert page.js(background) == dark
    page.driver.refresh()
    page.until("return performance.getEntriesByName('sluice-shown').length > 0")
    assert page.js(background) == dark, "what was chosen is kept"


def test_a_proxy_that_goes_away_is_said_and_found_again(tab: Callable[[Served], Tab], empty: Served) -> None:
    page = tab(empty).open("/conversations")
    page.says("live")
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **network})
    page.says("no answer, trying again")
    page.says("No conversations yet")
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **network})
    page.says("live")


def test_what_has_no_price_is_counted_in_tokens(tab: Callable[[Served], Tab]) -> None:
    with Served() as served:
        body = {"model": "a-model-of-ones-own", "messages": reading_twice()}
        headers = {"authorization": "Bearer u"}
        httpx.post(f"{served.url}/v1/chat/completions", json=body, headers=headers, trust_env=False, timeout=30)
        page = tab(served).open()
        page.says("Kept out of the context")
        page.says("No model here has a price")
        page.says("Tokens per day")
        assert "Money per day" not in page.text


def test_a_backend_is_seen_at_work(tab: Callable[[Served], Tab]) -> None:
    with Served(provider="self-hosted") as served:
        page = tab(served).open("/backends")
        for said in ("62.5 %", "87.5 %", "75.0 %", "3, 1", "room for 131K tokens"):
            page.says(said)
        page.says("tok/s")
        page.until("return document.querySelectorAll('.spark').length === 2")
        assert page.complaints == []


def test_what_agents_send_is_text(tab: Callable[[Served], Tab]) -> None:
    attack = "<img src=x onerror='window.hit = 1'><script>window.hit = 1</script>"
    with Served(store_content=True) as served:
        body = {"model": attack, "messages": [{"role": "user", "content": attack}]}
        headers = {"authorization": "Bearer u"}
        httpx.post(f"{served.url}/v1/chat/completions", json=body, headers=headers, trust_env=False, timeout=30)
        for path in ("", "/conversations"):
            page = tab(served).open(path)
            page.says("<img src=x")
            assert page.js("return window.hit") is None
            assert page.complaints == []


@pytest.fixture(scope="module")
def large() -> Iterator[Served]:
    """Ten thousand conversations, made of those that were replayed."""
    with Served(holdout=0.5) as served:

        async def play() -> None:
            tape = Tape(served.app.state.services.meter)
            async with httpx.AsyncClient(base_url=served.url, timeout=60, trust_env=False) as client:
                for _ in range(2):
                    await replay(client, shipped(), max_turns=8)
            arms = [[turns for turns in tape.conversations if turns[0].is_holdout is held] for held in (False, True)]
            treated, held_out = (arm or tape.conversations for arm in arms)
            await spread(served.app.state.services.meter, treated, held_out, 10_000)

        served.run(play())
        yield served


@pytest.mark.parametrize("path", ["", "/conversations"])
def test_ten_thousand_conversations_are_shown_a_page_at_a_time(
    tab: Callable[[Served], Tab], large: Served, path: str
) -> None:
    page = tab(large).open(path)
    page.says("10,000" if path else "80,0")
    painted = page.js("return performance.getEntriesByName('first-contentful-paint')[0].startTime")
    shown = page.js("return performance.getEntriesByName('sluice-shown')[0].startTime")
    print(f"/dashboard{path}: first paint {painted:.0f} ms, figures {shown:.0f} ms")
    assert max(page.js(ANSWER_SIZES)) < 100_000, "what is asked for does not grow with what there is"
    if path:
        assert page.js("return document.querySelectorAll('tbody tr').length") == 50
        page.click("#next")
        page.says("51–100 of 10,000")
