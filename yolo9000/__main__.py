"""`python -m yolo9000`, and `torchrun ... -m yolo9000`: the command `yolo9000`."""

from .cli import main

if __name__ == "__main__":
    main()
