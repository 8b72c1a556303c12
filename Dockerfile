# Finetune Studio as an image: `cpu` is what `docker build .` makes, `cuda` has the kernels for NVIDIA GPUs (docs/docker.md).
FROM debian:trixie-slim AS system
ENV LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive PYTHONDONTWRITEBYTECODE=1

# What compiles llama.cpp; nothing of it is in the final image. Its code runs on any processor of the architecture.
# No versions (DL3008): they are those of the Debian release, which keeps only the newest of each.
FROM system AS tools
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends build-essential ca-certificates make python3 python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
ARG PIP_EXTRA_INDEX_URL=""
ENV CMAKE_ARGS="-DGGML_NATIVE=OFF" PIP_NO_CACHE_DIR=1
WORKDIR /opt/studio
COPY . .

FROM tools AS built-cpu
RUN make install EXTRAS=demo && .venv/bin/python -m compileall -q studio

FROM tools AS built-cuda
RUN make install EXTRAS=demo,cuda && .venv/bin/python -m compileall -q studio

# What runs: Python, the studio, a user without rights, and one volume for all that a person makes.
FROM system AS runtime
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libgomp1 python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --create-home studio \
 && install --directory --owner=studio --group=studio --mode=0700 /data
ENV STUDIO_HOME=/data STUDIO_HOST=0.0.0.0 STUDIO_PORT=7860 PATH=/opt/studio/.venv/bin:$PATH
WORKDIR /data
VOLUME /data
EXPOSE 7860
# Its number, so that a host that allows no root (Kubernetes' runAsNonRoot) can tell.
USER 1000
# The page answers 401 to who has no session: it is up.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
  CMD ["python", "-c", "import http.client as h, os; c = h.HTTPConnection('127.0.0.1', int(os.environ['STUDIO_PORT']), timeout=8); c.request('GET', '/'); raise SystemExit(c.getresponse().status >= 500)"]
# Without STUDIO_PASSWORD (or a login file) it says so and ends: the address can be reached from outside.
CMD ["studio", "ui"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=built-cuda /opt/studio /opt/studio

FROM runtime AS cpu
COPY --from=built-cpu /opt/studio /opt/studio
