"""The command `fastgrad explore`."""

from __future__ import annotations

import click


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Port; 0: a free one.")
@click.option("--address", default="127.0.0.1", show_default=True, help="Interface; 0.0.0.0: all of this machine's.")
@click.option("--no-browser", is_flag=True, help="Open no browser.")
def explore(port: int, address: str, no_browser: bool) -> None:
    """Look at the gradient in the browser while a slider moves.

    Serves a page on this machine, until Ctrl-C: the gradient through drawn chains or layers, the textbook's example,
    training, and initialization schemes, with a slider for each size. The page's address holds its settings: a setting
    is a link.

    \b
    Example: fastgrad explore --port 8080
    """
    import webbrowser

    from fastgrad.explore.server import serve

    def ready(url: str) -> None:
        click.echo(f"fastgrad explore: {url} (Ctrl-C ends it)")
        if address not in ("127.0.0.1", "localhost", "::1"):
            click.echo(f"open to every machine that reaches {address}: there is no password", err=True)
        if not no_browser and not webbrowser.open(url):
            click.echo("no browser was found: open the address yourself", err=True)

    serve(address, port, ready)
