// The public names of the packer.

export { type PackFacts, type PackOptions, type PackProgress, packCheckpoint, type WeightsName } from "./pack";
export { cutWindows } from "./text";
