// The second part of a WHATSAT's answer: Google's own text, cut to the bound, or an error in
// Google's format.
//
// Google's layout varies, so its text is never written anew. JSON.parse checks the text. A scanner,
// which relies on that check, finds the ends of the list's elements.

/**
 * Google's answer with at most `bound` results, without blank lines and without newlines at the
 * ends. Throws if it is no JSON object.
 */
export function cut(text, bound) {
  const value = JSON.parse(text);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new SyntaxError('not a JSON object');
  }
  let kept = '';
  let start = 0;
  for (const ends of resultsIn(text)) {
    if (ends.length > bound) {
      kept += text.slice(start, ends[bound - 1]);
      start = ends.at(-1);
    }
  }
  kept += text.slice(start);
  return kept.replace(/(\r\n|[\r\n])[\r\n]*/g, '$1').replace(/^[\r\n]+|[\r\n]+$/g, '');
}

/** The server's own error, if Google gives no answer. */
export function error(message) {
  const quoted = JSON.stringify(message);
  return `{"html_attributions" : [], "results" : [], "status" : "UNKNOWN_ERROR", "error_message" : ${quoted}}`;
}

/** For each list called "results" in the outermost object, the ends of its elements. */
function* resultsIn(text) {
  let at = text.indexOf('{') + 1;
  for (at = skip(text, at); text[at] !== '}'; at = skip(text, at)) {
    const keyEnd = stringEnd(text, at);
    const key = JSON.parse(text.slice(at, keyEnd));
    at = skip(text, keyEnd);
    if (key === 'results' && text[at] === '[') {
      const ends = [];
      for (at = skip(text, at + 1); text[at] !== ']'; at = skip(text, at)) {
        at = valueEnd(text, at);
        ends.push(at);
      }
      yield ends;
      at += 1;
    } else {
      at = valueEnd(text, at);
    }
  }
}

/** The end of white space, a comma or a colon. */
function skip(text, at) {
  while (' \t\n\r,:'.includes(text[at])) {
    at += 1;
  }
  return at;
}

/** The end of the string that begins at `at`. */
function stringEnd(text, at) {
  for (at += 1; text[at] !== '"'; at += 1) {
    if (text[at] === '\\') {
      at += 1;
    }
  }
  return at + 1;
}

/** The end of the value that begins at `at`. */
function valueEnd(text, at) {
  if (text[at] === '"') {
    return stringEnd(text, at);
  }
  if (text[at] !== '{' && text[at] !== '[') {
    while (!' \t\n\r,]}'.includes(text[at])) {
      at += 1;
    }
    return at;
  }
  let depth = 0;
  do {
    if (text[at] === '"') {
      at = stringEnd(text, at);
      continue;
    }
    depth += { '{': 1, '[': 1, '}': -1, ']': -1 }[text[at]] ?? 0;
    at += 1;
  } while (depth > 0);
  return at;
}
