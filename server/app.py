"""The Flower ServerApp: it hands the grid and the run's configuration to the installed hub."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.hub import run_hub

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run, or resume, the federation; see :func:`server.hub.run_hub`."""
    run_hub(grid, context.run_config)
