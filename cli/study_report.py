"""`seatrial study report`: the page of a finished search anew, with the objectives added since; its plots as PNG."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("report")
@click.argument("study", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page. [STUDY/report.html]")
@click.option("--png", type=click.Path(path_type=Path), metavar="DIR", help="Write each plot there, as a picture.")
@click.option("--json", "as_json", is_flag=True, help="Print the paths as JSON.")
def command(study: Path, output: Path | None, png: Path | None, as_json: bool) -> None:
    """Write the page of STUDY anew from what is stored, with the objectives that were added to it by now.

    \b
    seatrial study report out/
    seatrial study report out/ --png plots/
    """
    from ..core.paths import whole_file, writing
    from ..search.report import figures, render
    from ..search.report_added import rows_of
    from ..search.report_png import save
    from ..search.study import Study

    found = Study.read(study)
    page = render(found.document, rows_of(found))
    output = output or study / "report.html"
    written = [output]
    with whole_file(output) as part:
        part.write_text(page, encoding="utf-8")
    if png:
        with writing(f"the plots {png}"):
            png.mkdir(parents=True, exist_ok=True)
            for name, figure in figures(found.document).items():
                with whole_file(png / f"{name}.png") as part:
                    save(figure, part)
                written.append(png / f"{name}.png")
    if as_json:
        click.echo(json.dumps([str(path) for path in written]))
        return
    for path in written:
        click.echo(f"written: {path}")
