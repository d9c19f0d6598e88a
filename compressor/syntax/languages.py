"""What is a definition in which language: a table of node kinds per tree-sitter grammar, and files' languages by name.

Data and look-ups only; the walk over a tree is in `outline.py`. A node kind that stands here is one that the grammar
has (a test holds the table against the grammars), so that a renamed kind cannot make a language silently go blind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Language:
    """How one language's tree is read."""

    name: str
    """The grammar's name in tree-sitter-language-pack."""
    extensions: tuple[str, ...]
    """File name endings, lower-case, with the dot."""
    kinds: Mapping[str, str]
    """Node kind → kind of definition (`function`, `class`, …)."""
    conditional: Mapping[str, str] = field(default_factory=dict)
    """Node kind → kind of definition if the node turns out to define something (see `naming.py`)."""
    filenames: tuple[str, ...] = ()
    """Whole file names, lower-case, that have no telling extension."""


_JS_KINDS = {
    "function_declaration": "function",
    "generator_function_declaration": "function",
    "class_declaration": "class",
    "method_definition": "method",
}
_JS_CONDITIONAL = {
    "variable_declarator": "function",
    "assignment_expression": "function",
    "pair": "function",
}
_TS_KINDS = {
    **_JS_KINDS,
    "abstract_class_declaration": "class",
    "interface_declaration": "interface",
    "type_alias_declaration": "type",
    "enum_declaration": "enum",
    "function_signature": "function",
    "method_signature": "method",
    "abstract_method_signature": "method",
    "internal_module": "module",
    "module": "module",
}
_TS_CONDITIONAL = {**_JS_CONDITIONAL, "public_field_definition": "method"}
_C_KINDS = {
    "function_definition": "function",
    "struct_specifier": "struct",
    "enum_specifier": "enum",
    "union_specifier": "struct",
    "type_definition": "type",
    "preproc_function_def": "macro",
}

LANGUAGES: tuple[Language, ...] = (
    Language(
        "python",
        (".py", ".pyi", ".pyw"),
        {"function_definition": "function", "class_definition": "class"},
    ),
    Language(
        "javascript", (".js", ".mjs", ".cjs", ".jsx"), {**_JS_KINDS}, {**_JS_CONDITIONAL, "field_definition": "method"}
    ),
    Language("typescript", (".ts", ".mts", ".cts"), _TS_KINDS, _TS_CONDITIONAL),
    Language("tsx", (".tsx",), _TS_KINDS, _TS_CONDITIONAL),
    Language(
        "go",
        (".go",),
        {
            "function_declaration": "function",
            "method_declaration": "method",
            "type_spec": "type",
            "type_alias": "type",
        },
    ),
    Language(
        "rust",
        (".rs",),
        {
            "function_item": "function",
            "function_signature_item": "function",
            "struct_item": "struct",
            "enum_item": "enum",
            "union_item": "struct",
            "trait_item": "trait",
            "impl_item": "impl",
            "mod_item": "module",
            "macro_definition": "macro",
            "type_item": "type",
        },
    ),
    Language(
        "java",
        (".java",),
        {
            "class_declaration": "class",
            "interface_declaration": "interface",
            "enum_declaration": "enum",
            "record_declaration": "class",
            "annotation_type_declaration": "interface",
            "method_declaration": "method",
            "constructor_declaration": "method",
        },
    ),
    Language("c", (".c", ".h"), _C_KINDS),
    Language(
        "cpp",
        (".cc", ".cpp", ".cxx", ".hpp", ".hh", ".hxx", ".cu", ".cuh", ".inl"),
        {
            **_C_KINDS,
            "class_specifier": "class",
            "namespace_definition": "namespace",
            "concept_definition": "concept",
            "alias_declaration": "type",
        },
    ),
    Language(
        "csharp",
        (".cs",),
        {
            "namespace_declaration": "namespace",
            "class_declaration": "class",
            "struct_declaration": "struct",
            "interface_declaration": "interface",
            "enum_declaration": "enum",
            "record_declaration": "class",
            "delegate_declaration": "type",
            "method_declaration": "method",
            "constructor_declaration": "method",
            "destructor_declaration": "method",
            "operator_declaration": "method",
            "property_declaration": "property",
            "local_function_statement": "function",
        },
    ),
    Language(
        "ruby",
        (".rb", ".rake", ".gemspec", ".ru"),
        {"class": "class", "module": "module", "method": "method", "singleton_method": "method"},
        filenames=("rakefile", "gemfile"),
    ),
    Language(
        "php",
        (".php",),
        {
            "function_definition": "function",
            "class_declaration": "class",
            "interface_declaration": "interface",
            "trait_declaration": "trait",
            "enum_declaration": "enum",
            "method_declaration": "method",
        },
    ),
    Language("elixir", (".ex", ".exs"), {}, {"call": "function"}),
    Language(
        "kotlin",
        (".kt", ".kts"),
        {
            "class_declaration": "class",
            "object_declaration": "object",
            "companion_object": "object",
            "function_declaration": "function",
            "type_alias": "type",
        },
    ),
    Language(
        "swift",
        (".swift",),
        {
            "class_declaration": "class",
            "protocol_declaration": "protocol",
            "function_declaration": "function",
            "protocol_function_declaration": "function",
            "init_declaration": "method",
        },
    ),
    Language(
        "scala",
        (".scala", ".sc"),
        {
            "class_definition": "class",
            "object_definition": "object",
            "trait_definition": "trait",
            "enum_definition": "enum",
            "function_definition": "function",
            "function_declaration": "function",
            "type_definition": "type",
            "given_definition": "given",
        },
    ),
    Language(
        "lua",
        (".lua",),
        {"function_declaration": "function"},
        {"assignment_statement": "function", "field": "function"},
    ),
    Language("bash", (".sh", ".bash", ".zsh", ".bats"), {"function_definition": "function"}),
    Language(
        "haskell",
        (".hs",),
        {
            "data_type": "type",
            "newtype": "type",
            "type_synomym": "type",
            "class": "class",
            "instance": "instance",
            "signature": "signature",
            "function": "function",
            "bind": "function",
        },
    ),
    Language(
        "ocaml",
        (".ml",),
        {
            "module_definition": "module",
            "type_definition": "type",
            "class_definition": "class",
            "value_definition": "function",
            "exception_definition": "type",
        },
    ),
    Language(
        "dart",
        (".dart",),
        {
            "class_definition": "class",
            "mixin_declaration": "class",
            "extension_declaration": "class",
            "enum_declaration": "enum",
            "function_signature": "function",
            "getter_signature": "method",
            "setter_signature": "method",
            "constructor_signature": "method",
            "type_alias": "type",
        },
    ),
    Language("r", (".r",), {}, {"binary_operator": "function"}),
    Language(
        "julia",
        (".jl",),
        {
            "module_definition": "module",
            "function_definition": "function",
            "macro_definition": "macro",
            "struct_definition": "struct",
            "abstract_definition": "type",
        },
        {"assignment": "function"},
    ),
    Language(
        "perl",
        (".pl", ".pm"),
        {"package_statement": "module", "subroutine_declaration_statement": "function"},
    ),
    Language("zig", (".zig",), {"FnProto": "function", "TestDecl": "test"}, {"VarDecl": "struct"}),
    Language(
        "erlang",
        (".erl", ".hrl"),
        {"fun_decl": "function", "record_decl": "struct"},
    ),
    Language("clojure", (".clj", ".cljs", ".cljc"), {}, {"list_lit": "function"}),
    Language(
        "solidity",
        (".sol",),
        {
            "contract_declaration": "class",
            "interface_declaration": "interface",
            "library_declaration": "class",
            "function_definition": "function",
            "modifier_definition": "function",
            "struct_declaration": "struct",
            "event_definition": "event",
        },
    ),
    Language(
        "objc",
        (".m", ".mm"),
        {
            "class_interface": "class",
            "class_implementation": "class",
            "protocol_declaration": "protocol",
            "method_definition": "method",
            "method_declaration": "method",
            "function_definition": "function",
        },
    ),
    Language(
        "proto",
        (".proto",),
        {"message": "message", "service": "service", "rpc": "method", "enum": "enum"},
    ),
    Language(
        "sql",
        (".sql",),
        {"create_table": "table", "create_view": "view", "create_function": "function"},
    ),
    Language(
        "powershell",
        (".ps1", ".psm1"),
        {"function_statement": "function", "class_statement": "class", "class_method_definition": "method"},
    ),
    Language("markdown", (".md", ".markdown"), {"section": "section"}),
)

_BY_NAME = {language.name: language for language in LANGUAGES}
_BY_EXTENSION = {extension: language for language in LANGUAGES for extension in language.extensions}
_BY_FILENAME = {filename: language for language in LANGUAGES for filename in language.filenames}
_SHEBANG = re.compile(rb"#!.*?\b(python|node|bash|zsh|sh|ruby|perl|lua|php|elixir)[\d.]*\b")
_BY_INTERPRETER = {"node": "javascript", "zsh": "bash", "sh": "bash"}


def language_of(path: str, first_line: bytes = b"") -> Language | None:
    """The language of a file by its name, else by its `#!` line; None where neither tells.

    Args:
        path: relative or absolute, with `/`.
        first_line: the file's first bytes; only a `#!` line is looked at.
    """
    filename = path.rsplit("/", 1)[-1].lower()
    if (language := _BY_FILENAME.get(filename)) is not None:
        return language
    stem, dot, extension = filename.rpartition(".")
    if dot and stem and (language := _BY_EXTENSION.get("." + extension)) is not None:
        return language
    if not dot and (match := _SHEBANG.match(first_line[:128])) is not None:
        interpreter = match.group(1).decode()
        return _BY_NAME[_BY_INTERPRETER.get(interpreter, interpreter)]
    return None
