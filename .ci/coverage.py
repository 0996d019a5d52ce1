"""The table of .ci/coverage: the lines of each room that the tests run, from an lcov file."""

import pathlib
import sys

# What data depends on, and the share of its lines that must be run.
MUST = ["format", "recovery", "compaction", "log"]
BAR = 0.95
# The program, and code that only tests use.
LEFT_OUT = ["cli", "server", "main", "fuzzing", "bugs"]


def code_lines(path):
    """How many lines of a file come before its unit tests, which are not counted."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines[:-1]):
        if line == "#[cfg(test)]" and lines[number + 1] == "mod tests {":
            return number
    return len(lines)


def files(lcov):
    """Each file of the report, with the times that each of its lines was run."""
    for entry in lcov.split("end_of_record"):
        fields = [line.partition(":")[::2] for line in entry.split()]
        for path in [value for name, value in fields if name == "SF"]:
            lines = [value.split(",") for name, value in fields if name == "DA"]
            yield pathlib.Path(path), {int(line[0]): int(line[1]) for line in lines}


def main():
    source = pathlib.Path(__file__).resolve().parent.parent / "src"
    rooms, missed = {}, []
    for path, runs in files(pathlib.Path(sys.argv[1]).read_text()):
        if source not in path.parents or path.name == "tests.rs" or "sim" in path.parts:
            continue
        name = path.relative_to(source)
        room = name.parts[0].removesuffix(".rs")
        if room in LEFT_OUT:
            continue
        last = code_lines(path)
        runs = {line: count for line, count in runs.items() if line <= last}
        run, count = rooms.get(room, (0, 0))
        rooms[room] = (run + sum(times > 0 for times in runs.values()), count + len(runs))
        if room in MUST:
            missed += [f"src/{name}:{line}" for line, times in sorted(runs.items()) if times == 0]

    print("not run, in " + ", ".join(MUST) + ":")
    print("\n".join(missed))
    print("\n| room | lines | run by tests |\n| --- | ---: | ---: |")
    for room, (run, count) in sorted(rooms.items()):
        print(f"| {room} | {count} | {100 * run / max(count, 1):.1f} % |")
    short = [room for room in MUST if rooms[room][0] < BAR * rooms[room][1]]
    if short:
        sys.exit(f"coverage: less than {100 * BAR:.0f} % in {', '.join(short)}")


main()
