import type { Operation } from './opcodes.ts';
import type { RunOptions, Session } from './session.ts';

/**
 * Runs an operation and hands its answer over in the order in which the server sent answers and events. A continuation
 * after `await` comes too late for that: it runs only after everything else that stood in the same chunk (reference 3).
 * An answer that comes after the caller was told of a failure is not handed over.
 */
export async function runInOrder<T>(
  session: Session,
  operation: Operation<T>,
  options: RunOptions,
  onAnswer: (value: T) => void,
): Promise<void> {
  let isWaiting = true;
  const answered = (value: T): T => {
    if (isWaiting) onAnswer(value);
    return value;
  };
  try {
    await session.run(
      {
        ...operation,
        parse: (reader) => answered(operation.parse(reader)),
        recover(code) {
          const recovered = operation.recover?.(code);
          if (recovered !== undefined) answered(recovered.value);
          return recovered;
        },
      },
      options,
    );
  } finally {
    isWaiting = false;
  }
}
