"""`cutaway open`, `cutaway run` and `cutaway show`: a network, one run of it, a result that was saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.cli import question, saving, shown
from cutaway.cli.common import Common, command
from cutaway.cli.question import Model, Text
from cutaway.cli.screen import Screen

if TYPE_CHECKING:
    from cutaway.network import Network, Run
    from cutaway.results import Work


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "open", without=("out", "resume", "sets", "seed"))(open_)
    command(app, without=("out", "resume", "sets", "seed"))(run)
    command(app, without=("resume", "budget", "sets", "seed", "device", "dtype", "trust_remote_code"))(show)


def open_(
    common: Common,
    screen: Screen,
    model: Model,
    anew: Annotated[bool, typer.Option("--anew", help="Find anatomy and certificate anew, whatever is remembered.")] = False,
) -> None:  # fmt: skip
    """Show a network's anatomy and its certificate: what was checked, to what error, and what is refused."""
    with question.opening(screen, common, model, not anew) as (net, _):
        screen.result(described(net), net)


def run(
    common: Common,
    screen: Screen,
    model: Model,
    text: Text,
    keep: Annotated[list[str] | None, typer.Option(
        "--keep", "-k", help="Sites to keep, e.g. resid_post, z.3; repeatable.")] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many next tokens to show.")] = 5,
    chat: Annotated[bool, typer.Option("--chat", help="Take the text as what a user says, by the chat template.")] = False,
    new: Annotated[int, typer.Option("--new", min=0, help="Continue by so many tokens.")] = 0,
    save: Annotated[Path | None, typer.Option(
        "--save", help="Write the kept sites and logits to this .safetensors file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file that --save names.")] = False,
) -> None:  # fmt: skip
    """Run a prompt: the likeliest next tokens, the loss, what was kept; with --new, how it goes on."""
    if save is not None:
        saving.free(save, overwrite)
    with question.opening(screen, common, model) as (net, work):
        tokens = net.chat(text) if chat else net.encode(text)
        done = net.run(tokens, keep=keep or [])
        work.check()
        generated = net.generate(tokens, new, **_within(work)) if new else None
    saved = None if save is None else saving.or_elsewhere(screen, lambda place: write_run(done, place), save)
    data = run_data(net, done, top) | ({} if saved is None else {"saved": str(saved)})
    shown_ = run_tables(done, top)
    if generated is not None:
        data |= {"continued": net.decode(generated.new[0].tolist()), "ended": generated.ended[0]}
        if chat:
            data["reply"] = generated.replies[0]
        more = "" if generated.ended[0] else f" ... (no end within {new} tokens)"
        goes_on = repr(generated.replies[0]) + more if chat else repr(data["continued"])
        shown_.append(shown.grid(("goes on",), [(goes_on,)]))
    screen.result(data, *shown_)
    screen.saved(*([] if saved is None else [saved]))


def _within(work: Work) -> dict[str, Any]:
    """What is left of a budget of seconds, as `generate` takes it: it then gives what it has by then."""
    allowed = work.budget.seconds
    return {} if allowed is None else {"max_time": max(0.01, allowed - work.seconds)}


def show(
    common: Common, screen: Screen, folder: Annotated[Path, typer.Argument(help="A saved result.", show_default=False)]
) -> None:  # fmt: skip
    """Show a saved result of any kind; with --out, write its page there."""
    from cutaway.reports import write
    from cutaway.results import load

    page = (
        None
        if common.out is None
        else common.out
        if common.out.suffix == ".html"
        else common.out / "report.html"
    )
    if page is not None:
        saving.free(page, common.overwrite)
    result = load(folder)
    screen.result(result.to_dict(), *shown.terminal(result))
    if page is not None:
        screen.saved(saving.or_elsewhere(screen, lambda place: write(result.page(), place), page))


def described(net: Network) -> dict[str, Any]:
    """A network as plain data."""
    return {
        "name": net.name, "hash": net.hash, "class": type(net.model).__name__, "layers": net.n_layers,
        "heads": net.n_heads, "width": net.d_model, "vocabulary": net.d_vocab, "context": net.n_ctx,
        "device": str(net.device), "dtype": _type(net),
        "sites": [str(site) for site in net.sites()], "certificate": net.certificate.to_dict(),
        "remembered": net.remembered,
    }  # fmt: skip


def run_data(net: Network, run: Run, top: int) -> dict[str, Any]:
    """A run as plain data: tokens, next tokens, loss, shapes."""
    return {
        "network": net.name,
        "tokens": run.tokens.strings(0) if run.tokens else None,
        "next": [{"token": token, "probability": p} for token, p in run.next_tokens(top)],
        "loss": run.loss,
        "kept": {str(site): list(run.kept[site].shape) for site in run.sites},
    }


def run_tables(run: Run, top: int) -> list[Any]:
    """A run as tables: next tokens, then the loss and what was kept in a line each."""
    following = ((repr(token), f"{p:.4f}") for token, p in run.next_tokens(top))
    lines = [line for line in run.summary() if line[0] in ("loss", "kept", "logits")]
    tables = [shown.grid(("next token", "probability"), following)] if run.next_tokens(top) else []
    return [*tables, shown.grid(("", ""), lines, show_header=False)] if lines else tables


def write_run(run: Run, path: Path) -> Path:
    """Write kept sites and logits as safetensors, atomically; sites that share memory are written as copies."""
    from safetensors.torch import save

    from cutaway.results import atomic_write

    named = {str(site): value for site, value in run.kept.items()}
    named |= {} if run.logits is None else {"logits": run.logits}
    return atomic_write(path, save({k: v.detach().cpu().contiguous().clone() for k, v in named.items()}))


def _type(net: Network) -> str:
    """The type of the weights, and of products where it is another."""
    coarse = "" if net.products is None else f", products in {net.products}"
    return f"{net.dtype}{coarse}".replace("torch.", "")
