"""The clock of everything, and who holds the floor: what a gateway needs of a model, without
torch."""

FRAME_RATE_HZ = 12.5
SAMPLE_RATE_HZ = 24_000
FRAME_SIZE = 1920  # samples in 80 ms
FRAME_MS = 80
FRAME_S = 0.08

# Who holds the floor in a frame. A backchannel leaves it with the one who is speaking.
NOBODY, AGENTS, USERS, USERS_BACKCHANNEL, AGENTS_BACKCHANNEL = range(5)
FLOORS = ("nobody", "agent", "user", "user_backchannel", "agent_backchannel")
