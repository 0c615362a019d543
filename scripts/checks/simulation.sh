# Thousands of seeds of servers and clients on a simulated kernel.
#
#     ./scripts/check simulation [--seeds N] [--start SEED] [--workload NAME] [--jobs N]
#     ./scripts/check simulation --workload NAME --start SEED --trace
#     ./scripts/check simulation --mutations
#
#     --seeds N          how many seeds of each workload; 2000 by default
#     --start SEED       the first of them; 0 by default
#     --workload NAME    echo, proxy, chat, endings, trees, scopes, locks, files, pipes, signals
#                        or tls; all by default
#     --jobs N           how many processes at once; one for each core by default
#     --trace            runs one seed, and prints all that happens in it
#     --mutations        puts fourteen deliberate bugs into the code, one after the other, each of which has to be found
#                        within 10,000 seeds
#
# A seed decides everything that can happen and go wrong. A seed that fails is printed with the command that repeats it and
# the end of its trace. The last line counts which faults were injected; one that never was is an error, too, from 1,000
# seeds on. docs/reliability.md says what is simulated.

features=simulation packages=(ringspun-net ringspun-tls) is_name=
for argument in "$@"; do
    case "$is_name$argument" in
    --mutation | --mutations) features=mutations ;;
    --workload) is_name=name: ; continue ;;
    name:tls) packages=(ringspun-tls) ;;
    name:*) packages=(ringspun-net) ;;
    esac
    is_name=
done
require_cargo
for package in "${packages[@]}"; do
    build=(cargo test --quiet --profile simulation -p "$package" --features "$features" --test simulation --no-run)
    # What is built is run without cargo, which would have a word of its own on each failure.
    program=$("${build[@]}" --message-format json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
    "$program" "$@"
done
