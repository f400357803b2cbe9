"""This process (signals, limits, standard streams, its name's lock) and the children it starts."""
