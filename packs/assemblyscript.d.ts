// AssemblyScript's number types as TypeScript sees them, for the files that both compilers read.

declare type u32 = number;
declare type i32 = number;
