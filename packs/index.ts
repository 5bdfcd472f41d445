// The public names of the packer.

export { type PackFacts, type PackOptions, type PackProgress, packCheckpoint, type WeightsName } from "./pack";
export { SHAPES, type SyntheticOptions, type SyntheticShape, writeSyntheticPack } from "./synthetic";
export { syntheticSource } from "./synthetic-source";
export { cutWindows } from "./text";
