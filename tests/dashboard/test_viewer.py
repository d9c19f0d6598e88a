from __future__ import annotations

import pytest
from pydantic import SecretStr

from sluice.proxy.access.keys import make_key
from sluice.proxy.dashboard.viewer import Viewer
from sluice.proxy.errors import ConfigError
from sluice.proxy.load_settings import load_settings
from sluice.proxy.serve import with_dashboard_key
from sluice.proxy.settings import Settings

KEY, _ = make_key("ann")


@pytest.mark.parametrize(
    ("settings", "is_made"),
    [
        ({"store_content": True}, True),
        ({}, False),
        ({"store_content": True, "keys": (KEY,)}, False),
        ({"store_content": True, "dashboard_key": SecretStr("the-owners-key")}, False),
    ],
)
def test_a_key_is_made_where_content_is_kept_and_no_other_could_be_shown(
    settings: dict[str, object], is_made: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Settings(upstream="http://127.0.0.1:9", **settings)  # type: ignore[arg-type]
    after = with_dashboard_key(before, "127.0.0.1:8790")
    said = capsys.readouterr().err
    assert (after.dashboard_key != before.dashboard_key) is is_made
    if is_made:
        assert after.dashboard_key is not None
        assert f"http://127.0.0.1:8790/dashboard#key={after.dashboard_key.get_secret_value()}\n" in said
    else:
        assert said == ""


def test_a_key_that_can_be_guessed_stops_the_start_and_is_not_said() -> None:
    with pytest.raises(ConfigError, match="bad value for dashboard_key: '\\*\\*\\*'") as caught:
        load_settings({"upstream": "http://127.0.0.1:9", "dashboard_key": "hush"})
    assert "hush" not in str(caught.value)


def test_content_is_for_its_own_key_and_for_the_owner() -> None:
    assert Viewer("owner").may_read(b"anybody's")
    assert Viewer("key", "ann", b"ann's").may_read(b"ann's")
    assert not Viewer("key", "ann", b"ann's").may_read(b"ben's")
    assert not Viewer("guest").may_read(b"")
