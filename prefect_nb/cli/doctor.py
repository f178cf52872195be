"""`prefect-nb doctor`."""

from typing import TYPE_CHECKING

import click

from prefect_nb.cli.errors import FAILED, OK
from prefect_nb.cli.group import Command
from prefect_nb.cli.output import as_json, output_option

if TYPE_CHECKING:
    from prefect_nb.service.doctor import Finding, Report


@click.command(cls=Command)
@click.option("--mend", is_flag=True, help="Do what is safe: remove leftovers, make files private, rebuild rows.")
@click.option("--remote", is_flag=True, help="Fetch results kept in other storages, too, and check them.")
@output_option
def doctor(mend: bool, remote: bool, output: str) -> int:
    """Check that all that was kept is whole. Says what is wrong and how to mend it.

    Exits with 0 when nothing is left to do, else with 1. Results in storages that only the network reaches are not
    fetched unless you ask for it.

    Example:
      prefect-nb doctor --mend
    """
    from prefect_nb.service.doctor import examine

    report = examine(mend, remote)
    if output == "json":
        as_json(_document(report))
    else:
        _show(report)
    return OK if report.healthy else FAILED


def _show(report: "Report") -> None:
    for finding in report.findings:
        click.echo(f"{_word(finding)}: {finding.problem.what}")
        click.echo(f"  where: {finding.problem.where}")
        if not finding.mended:
            click.echo(f"  mend:  {finding.problem.mend}")
    if not report.home.exists():
        click.echo(f"✓ There is no history yet: {report.home} will be made by the first run.")
        return
    seen = f"{report.flow_runs} flow runs, {report.task_runs} task runs, {report.results} kept results"
    if report.results_elsewhere:
        seen += f" ({report.results_elsewhere} kept elsewhere were not looked at: --remote)"
    left = sum(not (finding.mended or finding.harmless) for finding in report.findings)
    if report.healthy:
        click.echo(f"✓ {report.home} is healthy: {seen} checked.")
    else:
        click.echo(f"✗ {left} problem{'s' * (left != 1)} in {report.home}: {seen} checked.")


def _word(finding: "Finding") -> str:
    if finding.mended:
        return "✓ mended"
    return "· note" if finding.harmless else "✗ problem"


def _document(report: "Report") -> dict[str, object]:
    return {
        "home": str(report.home),
        "healthy": report.healthy,
        "flow_runs": report.flow_runs,
        "task_runs": report.task_runs,
        "results": report.results,
        "results_elsewhere": report.results_elsewhere,
        "findings": [
            {
                "what": finding.problem.what,
                "where": finding.problem.where,
                "mend": finding.problem.mend,
                "mended": finding.mended,
                "harmless": finding.harmless,
            }
            for finding in report.findings
        ],
    }
