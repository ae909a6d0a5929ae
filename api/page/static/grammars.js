// What languages look like, as far as their colours need it: rules are tried in order where a line
// has got to. `until` ends what may go on over lines.

const words = (text) => new Set(text.split(" ").filter(Boolean));
const rule = (kind, begin, until) => ({ kind, begin, until });

const NUMBER = rule("number", /(?:0[xX][\da-fA-F_]+|0[bB][01_]+|\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?)\w{0,4}/y);
const WORD = rule("word", /[\p{L}_$][\p{L}\p{N}_$]*/uy);
const QUOTED = rule("string", /"(?:[^"\\]|\\.)*"?/y);
const SINGLE = rule("string", /'(?:[^'\\]|\\.)*'?/y);
const SLASHES = rule("comment", /\/\/.*/y);
const STARS = rule("comment", /\/\*/y, /\*\//g);
const HASH = rule("comment", /#.*/y);

function grammar(rules, keywords, { values = "true false null", types = "", bigTypes = false, anyCase = false } = {}) {
  return { rules, keywords: words(keywords), values: words(values), types: words(types), bigTypes, anyCase };
}

const cLike = (keywords, more = {}, first = []) =>
  grammar([...first, SLASHES, STARS, QUOTED, SINGLE, NUMBER, WORD], keywords, more);

const REGEX = rule("string",
  /(?<=[=(,:[!&|?{};]\s*)\/(?![*/\s])(?:[^/\\[\n]|\\.|\[(?:[^\]\\]|\\.)*\])+\/[a-z]*/y);
const TEMPLATE = rule("string", /`/y, /(?<!\\)`/g);
const JS_WORDS =
  "as async await break case catch class const continue debugger default delete do else " +
    "export extends finally for from function get if import in instanceof let new of " +
    "return set static super switch this throw try typeof var void while with yield";
const TS_WORDS =
  `${JS_WORDS} abstract declare enum implements interface is keyof namespace private ` +
  `protected public readonly satisfies type`;
const JS = { values: "true false null undefined NaN Infinity", bigTypes: true };
const C_WORDS =
  "auto break case const continue default do else enum extern for goto if inline " +
    "register return sizeof static struct switch typedef union volatile while";
const C_TYPES =
  "bool char double float int long short signed size_t unsigned void int8_t int16_t " +
  "int32_t int64_t uint8_t uint16_t uint32_t uint64_t FILE";
const PREPROCESSOR = rule("attribute", /^\s*#\s*\w+(?:\s*<[^>]*>)?/y);
const CPP_WORDS =
  `${C_WORDS} catch class co_await co_return co_yield concept constexpr const_cast delete ` +
  `dynamic_cast explicit export final friend mutable namespace new noexcept operator ` +
  `override private protected public reinterpret_cast requires static_assert static_cast ` +
  `template this throw try typename using virtual`;

const python = grammar(
  [
    HASH,
    rule("string", /[rbfuRBFU]{0,2}"""/y, /"""/g),
    rule("string", /[rbfuRBFU]{0,2}'''/y, /'''/g),
    rule("string", /[rbfuRBFU]{0,2}"(?:[^"\\]|\\.)*"?/y),
    rule("string", /[rbfuRBFU]{0,2}'(?:[^'\\]|\\.)*'?/y),
    rule("attribute", /@[\w.]+/y),
    NUMBER,
    WORD,
  ],
  "and as assert async await break case class continue def del elif else except finally " +
    "for from global if import in is lambda match nonlocal not or pass raise return try " +
    "while with yield",
  { values: "True False None", types:
    "self cls int str float bool bytes list dict set tuple object type", bigTypes: true },
);

const bash = grammar(
  [
    rule("comment", /(?<![^\s;])#.*/y),
    rule("string", /"(?:[^"\\]|\\.)*"/y),
    rule("string", /'[^']*'/y),
    rule("string", /"/y, /(?<!\\)"/g),
    rule("string", /'/y, /'/g),
    rule("attribute", /\$(?:\w+|\{[^}]*\}|[@*#?$!-])/y),
    rule("type", /(?<=\s)--?[a-zA-Z][\w-]*/y),
    NUMBER,
    rule("word", /[A-Za-z_][\w.-]*/y),
  ],
  "if then else elif fi for while until do done case esac in function select return " +
    "local export readonly declare set unset source alias exit break continue shift trap " +
    "eval exec",
  { values: "true false", types: "cd echo printf read test sudo apt apt-get pip python python3 node npm git curl wget docker grep sed awk cat ls mkdir rm cp mv chmod tar make ssh" },
);

const json = grammar(
  [rule("attribute", /"(?:[^"\\]|\\.)*"(?=\s*:)/y), QUOTED, SLASHES, rule("number", /-?\d[\d.eE+-]*/y), WORD],
  "",
);

const html = grammar(
  [
    rule("comment", /<!--/y, /-->/g),
    rule("keyword", /<\/?[A-Za-z][\w:-]*|<!\w+|\/?>/y),
    rule("attribute", /[\w:@-]+(?=\s*=)/y),
    rule("string", /(?<==\s*)(?:"[^"]*"?|'[^']*'?)/y),
    rule("number", /&#?\w+;/y),
    rule("", /[\w-]+/y),
  ],
  "",
);

const css = grammar(
  [
    STARS,
    QUOTED,
    SINGLE,
    rule("keyword", /@[\w-]+|!important/y),
    rule("attribute", /--?[\w-]+|[a-z][\w-]*(?=\s*:\s)/y),
    rule("number", /#[\da-fA-F]{3,8}\b|-?(?:\d+(?:\.\d+)?|\.\d+)(?:%|[a-z]+)?/y),
    rule("type", /[.#][A-Za-z_][\w-]*|::?[a-z-]+/y),
    rule("word", /[A-Za-z_][\w-]*/y),
  ],
  "",
);

const sql = grammar(
  [rule("comment", /--.*/y), STARS, rule("string", /'(?:[^']|'')*'?/y), QUOTED, NUMBER, WORD],
  "add all alter and as asc begin between by cascade case check column commit " +
    "constraint create cross default delete desc distinct drop else end except exists " +
    "explain foreign from full group having if in index inner insert intersect into is " +
    "join key left like limit not of offset on or order outer over partition primary " +
    "references returning right rollback select set table then to transaction trigger " +
    "union unique update using values view when where window with",
  {
    values: "true false null",
    types:
      "bigint blob boolean char date decimal double float int integer json jsonb numeric " +
      "real serial smallint text time timestamp timestamptz uuid varchar",
    anyCase: true,
  },
);

const yaml = grammar(
  [
    rule("comment", /(?<!\S)#.*/y),
    rule("attribute", /(?<=^[\s-]*)[\w."'/-][^:#"'{}[\]]*(?=:(?:\s|$))/y),
    rule("keyword", /(?<!\S)[&*!][\w-]+|^---/y),
    QUOTED,
    SINGLE,
    rule("number", /(?<=[\s[,])-?\d[\d._]*(?=[\s,\]]|$)/y),
    rule("word", /[\w./-]+/y),
  ],
  "",
  { values: "true false null yes no on off" },
);

const diff = grammar(
  [rule("string", /^\+.*/y), rule("keyword", /^-.*/y), rule("attribute", /^@@.*/y), rule("", /.+/y)],
  "",
);

export const GRAMMARS = {
  python, bash, json, html, css, sql, yaml, diff,
  javascript: cLike(JS_WORDS, JS, [TEMPLATE, REGEX]),
  typescript: cLike(TS_WORDS, { ...JS, types:
    "any bigint boolean never number object string symbol unknown void" }, [TEMPLATE, rule("attribute", /@\w+/y)]),
  c: cLike(C_WORDS, { values: "true false NULL", types: C_TYPES }, [PREPROCESSOR]),
  cpp: cLike(CPP_WORDS, { values: "true false nullptr NULL", types: `${C_TYPES} string vector map auto`, bigTypes: true }, [PREPROCESSOR]),
  go: cLike(
    "break case chan const continue default defer else fallthrough for func go goto if " +
      "import interface map package range return select struct switch type var",
    { values: "true false nil iota", types:
      "any bool byte complex64 complex128 error float32 float64 int int8 int16 int32 " +
      "int64 rune string uint uint8 uint16 uint32 uint64 uintptr" },
    [rule("string", /`/y, /`/g)],
  ),
  rust: cLike(
    "as async await break const continue crate dyn else enum extern fn for if impl in " +
      "let loop match mod move mut pub ref return self static struct super trait type " +
      "unsafe use where while",
    { values: "true false", types:
      "Self bool char f32 f64 i8 i16 i32 i64 i128 isize str u8 u16 u32 u64 u128 usize", bigTypes: true },
    [rule("attribute", /#!?\[[^\]]*\]?/y), rule("type", /'[a-z_]\w*(?!')/y), rule("function", /\w+!(?=[([{])/y)],
  ),
  java: cLike(
    "abstract assert break case catch class const continue default do else enum extends " +
      "final finally for if implements import instanceof interface native new package " +
      "permits private protected public record return sealed static strictfp super switch " +
      "synchronized this throw throws transient try var volatile while yield",
    { types: "boolean byte char double float int long short void", bigTypes: true },
    [rule("string", /"""/y, /"""/g), rule("attribute", /@\w+/y)],
  ),
};

// Other names for them.
export const NAMES = {
  py: "python", python3: "python", js: "javascript", jsx: "javascript", mjs: "javascript",
  node: "javascript", ts: "typescript", tsx: "typescript", sh: "bash", shell: "bash", zsh: "bash",
  console: "bash", "shell-session": "bash", xml: "html", svg: "html", vue: "html", scss: "css",
  less: "css", postgresql: "sql", sqlite: "sql", mysql: "sql", yml: "yaml", toml: "yaml", h: "c",
  "c++": "cpp", cc: "cpp", hpp: "cpp", cxx: "cpp", golang: "go", rs: "rust", jsonc: "json",
  json5: "json", patch: "diff",
};
