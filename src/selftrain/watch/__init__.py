"""The live page: a local web server that shows run folders as they grow.

tail.py      one run: its chain read on as it grows, in the form the page wants
groups.py    its groups: an index to search, one group in full, the history of a prompt
series.py    curves cut down to what a screen can show
runs.py      which runs there are
security.py  who may ask what
server.py    the addresses and the stream of changes
static/      the page: ES modules and style, no build step; vendor/ has uPlot and its licence

It reads the record and nothing else; all it ever writes is a request (`control.ask`).
"""
