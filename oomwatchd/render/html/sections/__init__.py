"""The parts of an event's page, one module each; :mod:`oomwatchd.render.html.view` puts them in order."""
