"""What this program costs, beside the physical limit and beside its peers: `python -m benchmarks --help`.

Read in this order: group (what a row is, and how it is timed), rig and filling (servers, processes, workspaces), peers;
then the rows: calls, arrival (ways, listening, brokers), dry (limits), crowd (warm), reading, starting, memory; then
table, explained, page and plot (what is printed and written).
"""
