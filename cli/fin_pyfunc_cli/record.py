"""`fin-pyfunc record`: what a server with `record.folder` has written down."""

from __future__ import annotations

from pathlib import Path

import click

from fin_pyfunc_cli import options

folder_option = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    envvar="FIN_PYFUNC__RECORD__FOLDER",
    show_envvar=True,
    help="The server's deployment.api.record.folder.",
)


@click.group()
def record() -> None:
    """Verify, read and replay the record of predictions.

    Example: fin-pyfunc record verify --folder /var/lib/fin-pyfunc/record
    """


@record.command()
@folder_option
@click.option(
    "--heads",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that keeps the heads of the chains: compared if it is there, and written if all is well. Keep it on "
    "another machine.",
)
@options.as_json
def verify(folder: Path, heads: Path | None, as_json: bool) -> None:
    """Read the whole record, and name each place where it is not as it was written.

    Example: fin-pyfunc record verify --folder record --heads heads.json
    """
    import msgspec

    from fin_pyfunc.serving.record import verify as checks

    reports = checks.verify(folder, checks.read_heads(heads) if heads is not None and heads.exists() else ())
    problems = [problem for report in reports for problem in report.problems]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(reports), indent=2).decode())
    else:
        for report in reports:
            click.echo("\n".join(checks.lines_of(report)))
    if problems:
        more = "" if len(problems) == 1 else f", the first of {len(problems)} problems"
        raise click.ClickException(f"the record is not whole: {problems[0]}{more}")
    if heads is not None:
        heads.write_bytes(msgspec.json.format(msgspec.json.encode(checks.heads(reports)), indent=1) + b"\n")
    if not as_json:
        click.echo("the record is whole")


@record.command()
@folder_option
@click.option(
    "--parquet", "target", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The file to make."
)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
def export(folder: Path, target: Path, force: bool) -> None:
    """Write the record to a Parquet file, a line a row that was asked for.

    What was changed and can still be read is exported as it is: 'record verify' finds that. Exit status 1: some lines
    cannot be read any more.

    Example: fin-pyfunc record export --folder record --parquet november.parquet
    """
    from fin_pyfunc.serving.record.export import export_parquet
    from fin_pyfunc.serving.record.verify import Place

    damaged = list[Place]()
    count = export_parquet(folder, target, overwrite=force, damaged=damaged)
    click.echo(f"wrote {count} rows to {target}", err=True)
    if damaged:
        raise click.ClickException(
            f"{len(damaged)} left out of it that cannot be read any more (the first: {damaged[0]}): "
            "'fin-pyfunc record verify' says more."
        )


@record.command()
@click.argument("request_id", metavar="ID")
@folder_option
@click.option("--row", type=click.IntRange(0), help="Only this row of a batch, counted from 0.")
def show(request_id: str, folder: Path, row: int | None) -> None:
    """Print the record of the request ID, our id or the caller's, as JSON: a list, since callers may use an id twice.

    Example: fin-pyfunc record show 5d41402abc4b2a76b9719d911017c592 --folder record --row 3
    """
    import msgspec

    from fin_pyfunc.serving.record.reading import find, shown

    found = [shown(entry, row) for entry in find(folder, request_id)]
    click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())


@record.command()
@click.argument("request_id", metavar="ID")
@folder_option
@click.option(
    "--features",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON file with the rows, where the record has digests of them only.",
)
@click.option("--key-file", type=click.Path(dir_okay=False, path_type=Path), help="The key of those digests.")
@click.option("-m", "--model-uri", metavar="URI", help="Where the model is now. Default: where it was.")
@options.tracking_uri
def replay(
    request_id: str,
    folder: Path,
    features: Path | None,
    key_file: Path | None,
    model_uri: str | None,
    tracking_uri: str | None,
) -> None:
    """Make the prediction of the request ID again, by the very artifact, and compare it to the last bit.

    Loading a model runs the code in it. Exit status 1: it answered otherwise, could not be made again, or the
    record itself was changed.

    Example: fin-pyfunc record replay 5d41402abc4b2a76b9719d911017c592 --folder record
    """
    options.use_store(tracking_uri)
    import mlflow

    from fin_pyfunc.serving.record.reading import find, was_changed
    from fin_pyfunc.serving.record.replay import replay as again

    different = changed = 0
    for entry in find(folder, request_id):
        found = again(
            entry, mlflow.get_tracking_uri(), folder=folder, features=features, key_file=key_file, model_uri=model_uri
        )
        for said in found.elsewhere:
            click.echo(f"note: {said}", err=True)
        rows = f"{found.n_rows} row{'s' * (found.n_rows != 1)}"
        by = f"{found.model_id} on {found.backend or 'no backend'}, {rows}, {entry.place}"
        if was_changed(folder, entry):
            changed += 1
            click.echo(f"changed since it was written, by what follows it: {entry.place}", err=True)
        if found.is_same:
            click.echo(f"the same to the last bit: {by}")
            continue
        different += 1
        click.echo("\n".join([f"not the same: {by}", *(f"  {said}" for said in found.differences)]))
    if different:
        raise click.ClickException("the prediction was not the same.")
    if changed:
        raise click.ClickException("the record is not what was written: 'fin-pyfunc record verify' says more.")
