"""`python -m dualflat` is `dualflat`."""

from dualflat.cli import main

raise SystemExit(main())
