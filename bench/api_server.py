"""Run one app on one server, with the options `python -m api` uses: `python -m bench.api_server uvicorn APP PORT`."""

import sys


def main(server: str, target: str, port: int) -> None:
    """Serve the app factory `target` until ended."""
    if server == "uvicorn":
        import uvicorn

        uvicorn.run(
            target,
            factory=True,
            host="127.0.0.1",
            port=port,
            loop="uvloop",
            http="httptools",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        return
    from granian import Granian
    from granian.constants import Interfaces

    Granian(
        target, address="127.0.0.1", port=port, interface=Interfaces.ASGI, factory=True, workers=1, log_enabled=False
    ).serve()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
