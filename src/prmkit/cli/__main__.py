"""``python -m prmkit.cli``: the command ``prm``."""

from prmkit.cli import main

if __name__ == "__main__":
    main()
