# ropewalk for a GPU. Linted with hadolint 2; not built or run where it was written, which has no container engine.
#   docker build -t ropewalk . && docker run --gpus all -v "$PWD:/work" ropewalk plan hemp --window 1024
# On several GPUs, by torchrun, whose processes share memory, of which Docker gives 64 MB where nobody asks for more:
#   docker run --gpus all --shm-size 16g --entrypoint torchrun -v "$PWD:/work" ropewalk --nproc-per-node 8 -m ropewalk train …
# It runs as uid 1000. A directory that is another's cannot be written by that: add --user "$(id -u):$(id -g)" -e HOME=/work
FROM python:3.11-slim

# A compiler, since torch.compile makes kernels with it; any version does. Nobody needs to be root to train.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 ropewalk

WORKDIR /opt/ropewalk
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir -c constraints.txt '.[eval,report,export,low-bit]'

USER 1000
WORKDIR /work
ENTRYPOINT ["ropewalk"]
CMD ["--help"]
