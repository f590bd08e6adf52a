"""`deeplab-tf train`."""

import sys
from pathlib import Path

import click


@click.command(short_help="Train a model from a config; resume an interrupted run.")
@click.option("--config", "name", metavar="NAME|FILE", help="A config's name or Python file.")
@click.option("--run", type=click.Path(path_type=Path), help="The run folder. [runs/NAME]")
@click.option("--resume", is_flag=True, help="Go on with the run in --run.")
@click.option("--list", "list_configs", is_flag=True, help="List the configs and stop.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def command(name, run, resume, list_configs, overrides):
    """Train a model on records made with `deeplab-tf data build`.

    The run folder gets the config, a log, curves as a picture, checkpoints, and the presets
    `best` and `last`, which predict, evaluate and export open.

    \b
    Examples:
      deeplab-tf train --config portrait data=RECORDS
      deeplab-tf train --config portrait data=RECORDS steps=2000 optimizer.learning_rate=0.002
      deeplab-tf train --resume --run runs/portrait      after a stop, a crash or a kill
    """
    try:
        _run(name, run, resume, list_configs, overrides)
    except KeyboardInterrupt as error:
        # Stopped between two steps it has a message; before the first step there is nothing yet.
        click.echo(str(error) or "stopped", err=True)
        sys.exit(130)


def _run(name, run, resume, list_configs, overrides) -> None:
    from deeplab_tf.errors import InputError
    from deeplab_tf.inference.litert import quiet_stderr

    with quiet_stderr():  # TensorFlow logs on being imported, before it knows its log level
        from deeplab_tf.training.callbacks import Stopped
        from deeplab_tf.training.config import TrainConfig, config_names, load_config, summary
        from deeplab_tf.training.train import train

    if list_configs:
        names = config_names()
        width = max(map(len, names))
        click.echo("\n".join(f"{name:{width}}  {summary(name)}" for name in names))
        return
    if resume:
        if run is None or not (run / "config.json").is_file():
            raise InputError("--resume needs --run with the folder of a run that was started.")
        if overrides or name:
            raise InputError("--resume goes on as the run was started; leave out config and keys.")
        config = TrainConfig()
    else:
        if name is None:
            raise InputError("name a config with --config; `deeplab-tf train --list` shows them.")
        config = load_config(name, overrides)
        if not config.data:
            raise InputError("name the records: data=FOLDER, made with `deeplab-tf data build`.")
        run = run or Path("runs") / Path(name).stem
    try:
        train(config, run, resume=resume, say=click.echo)
    except Stopped as stop:
        raise KeyboardInterrupt(
            f"{stop}; go on with: deeplab-tf train --resume --run {run}"
        ) from None
    click.echo(f"done: {run / 'best'} and {run / 'last'} are presets; next: deeplab-tf evaluate")
