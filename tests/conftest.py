"""For every test: torch on one thread, since more of them only wait for one another here."""

import torch

torch.set_num_threads(1)
