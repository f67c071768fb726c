# The image of releases. `make image` makes the same one for the lab without an engine.
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=$(git describe --tags --always) .
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETARCH
ARG VERSION=devel
# k8s.io's generated code is most of the program and is not hot: without inlining it is 2 MB smaller.
# No file path, no VCS state and no build ID of this machine: the same sources give the same bytes.
RUN CGO_ENABLED=0 GOOS=linux GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -gcflags='k8s.io/...=-l' \
    -ldflags "-s -w -X main.version=$VERSION" -o /baton-agent ./cmd/baton-agent

FROM scratch
# Time zones and the certificates of public authorities are in the binary.
COPY --from=build /baton-agent /baton-agent
# uid 0 is what logind and systemd ask for; the DaemonSet takes every capability away from it.
USER 0
ENTRYPOINT ["/baton-agent"]
