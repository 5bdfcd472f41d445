// The executable's entry: the command line, unless the program has called itself to test the engine.

import { TURBO_TEST, testTurbo } from "../../runtime/node-turbo";

if (process.argv[2] === TURBO_TEST) testTurbo();
else void import("../main");
