"""`deeplab-tf train`."""

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
    from deeplab_tf.errors import InputError
    from deeplab_tf.training.config import TrainConfig, config_names, load_config
    from deeplab_tf.training.train import train

    if list_configs:
        click.echo("\n".join(config_names()))
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
    train(config, run, resume=resume, say=click.echo)
    click.echo(f"done: {run / 'best'} and {run / 'last'} are presets; next: deeplab-tf evaluate")
