"""`python -m modelassay`, and so `torchrun -m modelassay`: the command line."""

from modelassay.cli.main import main

if __name__ == "__main__":
    main()
