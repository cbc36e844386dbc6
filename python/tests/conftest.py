import hypothesis

# Seeded, so that a failure comes again; no deadline, as the machine may be busy.
hypothesis.settings.register_profile("cbuf", derandomize=True, deadline=None, max_examples=200)
hypothesis.settings.load_profile("cbuf")
