/** What a command has done is in force; not all of it may outlive the daemon. */
export function warnIfForgetful({ remembered }: { readonly remembered: boolean }): void {
  if (!remembered)
    process.stderr.write('tandem: done, but it could not be saved: a restart of the daemon undoes it\n');
}
