# Every service and command in one image: `docker build -t probatum .`, then deploy/compose.yml or deploy/kustomize.
# LightGBM is not in it: its models are served without, and trained where the extra `trees` is installed.
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/probatum
COPY locks/image.txt locks/image.txt
RUN /opt/probatum/bin/pip install --require-hashes -r locks/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/probatum/bin/pip install --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/probatum /opt/probatum
RUN useradd --system --uid 10001 --create-home --home-dir /srv/probatum probatum
# The root file system may be read-only: the workspace is a volume, compiled kernels are kept in /tmp.
ENV PATH=/opt/probatum/bin:$PATH PYTHONUNBUFFERED=1 NUMBA_CACHE_DIR=/tmp/numba \
    PROBATUM_WORKSPACE=/srv/probatum/workspace PROBATUM_HEALTH=http://127.0.0.1:4010/ml/ready
USER 10001
WORKDIR /srv/probatum
VOLUME /srv/probatum
EXPOSE 4001 4010 4020
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(os.environ['PROBATUM_HEALTH'], timeout=2)"]
ENTRYPOINT ["probatum"]
CMD ["--help"]
