#!/usr/bin/env python3
"""Draws build/bench.csv, what bench/run wrote last: build/throughput.svg, each program's rate as a part of the limit's, and
build/latency.svg, percentiles of the round trip and of the one-way latency. Needs matplotlib (make bench-deps)."""
import collections
import csv
import os
import statistics
import sys

try:
    import matplotlib
except ImportError:
    system = "/usr/bin/python3"  # where Debian's packages are, if another python3 comes first
    if os.path.realpath(sys.executable) == os.path.realpath(system) or not os.path.exists(system):
        sys.exit("plots.py: matplotlib is missing: make bench-deps")
    os.execv(system, [system, *sys.argv])
matplotlib.use("svg")
import matplotlib.pyplot as plt

BUILD = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "build")
COLOURS = {"cbuf": "#c0392b", "cbuf-dense": "#e67e22", "lim": "#7f8c8d", "bare": "#2c3e50", "boost": "#2980b9", "dpdk": "#27ae60",
           "dpdk-hts": "#1e8449", "ck": "#8e44ad", "urcu": "#16a085", "mc-spsc": "#d4ac0d", "mc-mpmc": "#a0522d",
           "iceoryx": "#e377c2"}
STREAMS = [("row by row\ncopied", "stream/{}/1/copy/65536"), ("written by 1,\nread by 32", "stream/{}/1to32/copy/65536"),
           ("by 32\ncopied", "stream/{}/32/copy/65536"), ("by 256\ncopied", "stream/{}/256/copy/65536"),
           ("by 32\nin place", "stream/{}/32/place/65536"), ("by 256\nin place", "stream/{}/256/place/65536")]
LATENCIES = [("round trip, 32-byte rows, capacity 1,024", "roundtrip/32/1024"),
             ("one way, a row every microsecond, from when it was due", "paced/32/1us")]
PERCENTILES = ["p50", "p90", "p99", "p99.9"]


def read(path):
    """-> environment, {(program, case, metric): median}; disturbed runs count only where there are no others"""
    runs = collections.defaultdict(dict)
    environment = ""
    with open(path, newline="") as file:
        for line in csv.DictReader(file):
            environment = line["environment"]
            runs[line["program"], line["case"], line["repetition"]][line["metric"]] = float(line["value"])
    cells = collections.defaultdict(lambda: ([], []))
    for (program, case, _), values in runs.items():
        for metric, value in values.items():
            cells[program, case, metric][int(values.get("disturbed", 0))].append(value)
    figures, disturbed = {}, 0
    for key, (calm, rough) in cells.items():
        figures[key] = statistics.median(calm or rough)
        disturbed += not calm
    return environment + ("; disturbed runs among them" if disturbed else ""), figures


def spread_out(positions, least):
    """Moves labels' positions, sorted, apart."""
    placed = []
    for y in positions:
        placed.append(max(y, placed[-1] * least) if placed else y)
    return placed


def throughput(environment, figures):
    widths = [w for w in (32, 64) if ("lim", STREAMS[3][1].format(w), "Mrows_per_s") in figures]
    if not widths:
        return None
    fig, axes = plt.subplots(len(widths), 1, figsize=(11, 1 + 3.75 * len(widths)), squeeze=False)
    programs = [p for p in COLOURS if any((p, case.format(w), "Mrows_per_s") in figures for _, case in STREAMS for w in (32, 64))]
    for ax, width in zip(axes[:, 0], widths):
        limit = figures["lim", STREAMS[3][1].format(width), "Mrows_per_s"]
        for at, (_, case) in enumerate(STREAMS):
            here = [(p, figures.get((p, case.format(width), "Mrows_per_s"))) for p in programs]
            here = [(p, v) for p, v in here if v]
            for k, (program, value) in enumerate(here):
                x = at + (k - (len(here) - 1) / 2) * .085
                ax.bar(x, value / limit, .078, color=COLOURS[program])
                ax.text(x, value / limit + .015, "%.2f" % (value / limit), rotation=90, ha="center", va="bottom", fontsize=7)
        ax.axhline(1, color="black", linewidth=.8)
        ax.set_ylim(0, 1.75)
        ax.set_title("%d-byte rows: 1.00 is %.0f M rows/s" % (width, limit), fontsize=10, loc="left")
        ax.set_ylabel("part of lim's rate by 256, copied")
        ax.set_xticks(range(len(STREAMS)), [name for name, _ in STREAMS])
        ax.spines[["top", "right"]].set_visible(False)
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[p]) for p in programs]
    fig.suptitle("One producer to one consumer, nothing lost, capacity 65,536", fontsize=12)
    fig.legend(handles, programs, ncols=len(programs), loc="upper center", frameon=False, bbox_to_anchor=(.5, 1 - .3 / fig.get_figheight()),
               fontsize=9)
    fig.text(.01, .005, environment, fontsize=7, color="#555555")
    fig.tight_layout(rect=(0, .015, 1, 1 - .3 / fig.get_figheight()))
    fig.savefig(os.path.join(BUILD, "throughput.svg"))
    return fig


def latency(environment, figures):
    cases = [(title, case) for title, case in LATENCIES if any((p, case, "p50_ns") in figures for p in COLOURS)]
    if not cases:
        return None
    fig, axes = plt.subplots(1, len(cases), figsize=(6.5 * len(cases), 6), squeeze=False)
    for ax, (title, case) in zip(axes[0], cases):
        lines = []
        for program, colour in COLOURS.items():
            values = [figures.get((program, case, p + "_ns")) for p in PERCENTILES]
            if None in values:
                continue
            ours = program.startswith("cbuf")
            ax.plot(range(len(values)), values, color=colour, marker="o", markersize=4, linewidth=2.2 if ours else 1.2,
                    linestyle="--" if program == "bare" else "-", zorder=3 if ours else 2)
            lines.append((values[0], program, colour))
        ax.set_yscale("log")
        lines.sort()
        low, high = ax.get_ylim()
        places = spread_out([v for v, _, _ in lines], (high / low) ** .034)
        for y, (value, program, colour) in zip(places, lines):  # named at their beginning
            ax.annotate("%s %s" % (program, format(round(value), ",")), (0, value), (-.45, y), color=colour, fontsize=8.5, ha="right",
                        va="center", arrowprops={"arrowstyle": "-", "color": colour, "linewidth": .5})
        ax.set_xlim(-1.4, len(PERCENTILES) - .8)
        ax.set_xticks(range(len(PERCENTILES)), PERCENTILES)
        ax.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: format(round(v), ",")))
        ax.set_ylabel("ns")
        ax.set_title(title, fontsize=10, loc="left")
        ax.grid(axis="y", color="#dddddd", linewidth=.6)
        ax.spines[["top", "right"]].set_visible(False)
    fig.suptitle("Latency; the dashed line is the machine's own: bare cache lines", fontsize=12)
    fig.text(.01, .005, environment, fontsize=7, color="#555555")
    fig.tight_layout(rect=(0, .015, 1, 1))
    fig.savefig(os.path.join(BUILD, "latency.svg"))
    return fig


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(BUILD, "bench.csv")
    if not os.path.exists(path):
        sys.exit("plots.py: no %s: make bench first" % path)
    environment, figures = read(path)
    plots = {"throughput": throughput(environment, figures), "latency": latency(environment, figures)}
    for name, fig in plots.items():
        if not fig:
            print("%s: its cases were not run" % name)
            continue
        if len(sys.argv) > 2:
            fig.savefig(os.path.join(sys.argv[2], name + ".png"), dpi=90)
        print("build/%s.svg" % name)


if __name__ == "__main__":
    main()
