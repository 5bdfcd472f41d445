/** What `snug.wasm --help` prints. */
export const HELP: string = `Continue a prompt with a pack, cut to the memory there is.

  snug.wasm --pack FILE --prompt TEXT [options]

FILE has to lie in a folder that the host has opened for this program.
Without --prompt and --tokens the prompt is read from stdin, if something is
piped in. Text goes to stdout, everything else to stderr.

Options:
  --pack FILE             the pack
  --prompt TEXT           what is continued; "-" reads it from stdin
  --tokens IDS            token ids as the prompt, such as 1,2,3
  --memory SIZE           most memory to use: bytes, "600MB", "512MiB" (all
                          that the pack has)
  --pruning RATE          share of the prunable weights to leave out instead
  --context N             positions to have room for (2048, or the model's
                          most if that is less)
  --max-tokens N          most tokens to make (what the context has room for)
  --temperature T         0 takes the likeliest token (0.7)
  --top-k N               only the N likeliest tokens; 0: all (40)
  --top-p P               only the likeliest that have this probability (0.95)
  --min-p P               only tokens at least this likely, relative to the
                          likeliest (0.05)
  --repeat-penalty R      makes tokens that were there less likely; 1: off
                          (1.1)
  --seed N                the same seed gives the same text (drawn at random)
  --activations int8|f32  what 4- and 8-bit matrices work on (int8)
  --ids                   print the ids of the tokens instead of text
  --plan                  print what would fit, and load nothing
  -h, --help              this text
  -v, --version           the version of snug

Exit codes: 0 done, 1 failed, 2 wrong usage.
`;
