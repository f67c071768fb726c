# The image of releases. `make image` makes the same one for the lab without an engine.
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=$(git describe --tags --always) .
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETARCH
ARG VERSION=devel
# No file path, no VCS state and no build ID of this machine: the same sources give the same bytes.
RUN make build ARCH="$TARGETARCH" VERSION="$VERSION" && mv "dist/$TARGETARCH/baton-agent" /baton-agent

FROM scratch
# Time zones and the certificates of public authorities are in the binary.
COPY --from=build /baton-agent /baton-agent
# uid 0 is what logind and systemd ask for; the DaemonSet takes every capability away from it.
USER 0
ENTRYPOINT ["/baton-agent"]
