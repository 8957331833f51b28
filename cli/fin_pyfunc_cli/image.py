"""`fin-pyfunc image`: one image, one model."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from fin_pyfunc_cli import options, text

_model = click.option(
    "-m", "--model-uri", required=True, metavar="URI", help="Model: whatever MLflow takes, a local folder too."
)


@click.group()
def image() -> None:
    """Put one model into an image that needs no network and no MLflow store.

    Example: fin-pyfunc image build -m models:/eurusd_rf@champion -t eurusd:1
    """


@image.command()
@_model
@click.option("-t", "--tag", required=True, metavar="TAG", help="Name of the image, such as eurusd:1.")
@click.option("--base-image", metavar="IMAGE", help="Python to build on. Default: BASE_IMAGE, else python:3.11-slim.")
@click.option("--network", metavar="NAME", help="Docker's network of the build, such as host.")
@options.tracking_uri
def build(model_uri: str, tag: str, base_image: str | None, network: str | None, tracking_uri: str | None) -> None:
    """Build an image of the model that URI means now.

    An alias is resolved at once; the labels say which model it was, from which run, with which digests.

    Example: fin-pyfunc image build -m models:/eurusd_rf@champion -t eurusd:1
    """
    options.use_store(tracking_uri, must_exist=model_uri.startswith(("models:/", "runs:/")))
    import mlflow

    from fin_pyfunc import image as images

    context = images.build(
        model_uri, tag, tracking_uri=mlflow.get_tracking_uri(), base_image=base_image, network=network
    )
    click.echo(text.table(context.labels.items()))
    click.echo(f"\nbuilt {tag}; try:\n\ndocker run --rm -p 127.0.0.1:8000:8000 {tag}")


@image.command()
@_model
@click.option(
    *("-o", "--output"),
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write; must be missing or empty.",
)
@options.tracking_uri
def context(model_uri: str, output: Path, tracking_uri: str | None) -> None:
    """Write the folder that the image is built from, for a machine that has Docker.

    Example: fin-pyfunc image context -m models:/eurusd_rf@champion -o eurusd-image
    """
    options.use_store(tracking_uri, must_exist=model_uri.startswith(("models:/", "runs:/")))
    import mlflow

    from fin_pyfunc import image as images
    from fin_pyfunc.image.build import BASE_IMAGE, arguments

    written = images.write_context(model_uri, output, mlflow.get_tracking_uri())
    click.echo(text.table(written.labels.items()))
    command = shlex.join(["docker", *arguments(written, f"{output.name.lower()}:1", BASE_IMAGE)])
    click.echo(f"\nwrote {output}; where Docker is:\n\n{command}")
