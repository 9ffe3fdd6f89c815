import Handlebars from 'handlebars';

import { messageOf, TandemError } from '@tandem/core';

/** A compiled template. */
export interface Template {
  /** Deterministic: equal data gives equal text. Throws `TEMPLATE_BROKEN`, with the place in the file. */
  render(data: object): string;
}

const HELPERS = {
  json: (value: unknown) => JSON.stringify(value) ?? 'null',
  eq: (a: unknown, b: unknown) => a === b,
};

/**
 * Values are data: they are never compiled, and inherited properties are out of reach. Nothing is escaped, because
 * nobody here knows the syntax of the target. A helper that does not exist is found out at once, not when an instance
 * first needs it. Throws `TEMPLATE_BROKEN`.
 */
export function compileTemplate(text: string, file: string): Template {
  const engine = Handlebars.create();
  engine.registerHelper(HELPERS);
  const options = { noEscape: true, knownHelpers: { json: true, eq: true }, knownHelpersOnly: true };
  if (text.trim() === '') throw broken(file, new Error('the template is empty'));
  let render: Handlebars.TemplateDelegate;
  try {
    // compile() by itself does nothing before the first use.
    engine.precompile(text, options);
    render = engine.compile(text, options);
  } catch (error) {
    throw broken(file, error);
  }
  return {
    render(data) {
      let rendered: string;
      try {
        rendered = render(data, {
          allowProtoPropertiesByDefault: false,
          allowProtoMethodsByDefault: false,
        });
      } catch (error) {
        throw broken(file, error);
      }
      if (rendered.trim() === '') throw broken(file, new Error('it renders to nothing'));
      return rendered;
    },
  };
}

/** Handlebars names the line in its message, as a property, or not at all. */
function broken(file: string, error: unknown): TandemError {
  const message = messageOf(error);
  const place = error instanceof Error ? (error as { lineNumber?: unknown }).lineNumber : undefined;
  const [, named = ''] = /\bon line (\d+)/.exec(message) ?? / - (\d+):\d+$/.exec(message) ?? [];
  const line = typeof place === 'number' ? String(place) : named;
  const at = line === '' ? file : `${file}:${line}`;
  return new TandemError('TEMPLATE_BROKEN', `${at}: ${message}`, { cause: error, details: { file } });
}
