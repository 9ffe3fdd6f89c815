const SLASH = 0x2f;
const DOT = 0x2e;

/** The path of the parent; the root for a node of the first level. */
export function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/')) || '/';
}

/** The last part of the path. */
export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** Whether the server takes this as the path of a node: absolute, no empty or relative parts, no unprintable characters. */
export function isValidPath(path: string): boolean {
  if (path === '/') return true;
  if (path.charCodeAt(0) !== SLASH) return false;
  let partStart = 1;
  for (let index = 1; index <= path.length; index++) {
    const unit = index === path.length ? SLASH : path.charCodeAt(index);
    if (unit === SLASH) {
      if (!isValidPart(path, partStart, index)) return false;
      partStart = index + 1;
    } else if (isForbidden(unit)) return false;
  }
  return true;
}

function isValidPart(path: string, start: number, end: number): boolean {
  const length = end - start;
  if (length === 0) return false;
  if (length > 2 || path.charCodeAt(start) !== DOT) return true;
  return length === 2 && path.charCodeAt(start + 1) !== DOT;
}

/** Works on UTF-16 units like the Java server: surrogates are out, and with them every character beyond U+FFFF. */
function isForbidden(unit: number): boolean {
  return (
    unit <= 0x1f ||
    (unit >= 0x7f && unit <= 0x9f) ||
    (unit >= 0xd800 && unit <= 0xf8ff) ||
    (unit >= 0xfff0 && unit <= 0xffff)
  );
}
