# python3 run-wasmtime.py MODULE RUNS: WASI commands in Wasmtime. RUNS is a JSON file of [arguments, folder]; prints a JSON
# list of what each wrote to stdout, or {"error": ...}.

import json
import os
import sys
import tempfile

from wasmtime import Config, Engine, ExitTrap, Linker, Module, Store, WasiConfig

engine = Engine(Config())
linker = Linker(engine)
linker.define_wasi()
module = Module.from_file(engine, sys.argv[1])
outputs = []
with open(sys.argv[2]) as file:
    runs = json.load(file)
with tempfile.TemporaryDirectory() as scratch:
    out, err = os.path.join(scratch, "out"), os.path.join(scratch, "err")
    for arguments, folder in runs:
        wasi = WasiConfig()
        wasi.argv = ["snug.wasm", *arguments]
        wasi.stdout_file, wasi.stderr_file = out, err
        wasi.preopen_dir(folder, folder)
        store = Store(engine)
        store.set_wasi(wasi)
        code = 0
        try:
            linker.instantiate(store, module).exports(store)["_start"](store)
        except ExitTrap as end:
            code = end.code
        del store, wasi
        with open(out) as written, open(err) as said:
            outputs.append(written.read() if code == 0 else {"error": said.read()})
json.dump(outputs, sys.stdout)
