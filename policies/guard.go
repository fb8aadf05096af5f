package policies

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// The limits of POLICY.md, and of what the HCL parser can be given: it recurses without a limit of its
// own, and 100,000 open brackets end the process (hashicorp/hcl#809). A score comes over the mesh.
const (
	maxFileBytes   = 1 << 20
	maxBundleBytes = 8 << 20
	maxBundleFiles = 1000
	maxRoles       = 2000
	maxNesting     = 64   // open brackets, interpolations, runs of ! and -, chained ?
	maxChain       = 1000 // operators, dots and indexes in one expression: evaluation recurses into each
	maxNumberExp   = 308  // decimal exponent of a number as written
	maxMelding     = 4e8  // sum over all texts of their pieces squared: so much work the parser makes of joining them
)

// guard refuses text that the parser or an evaluation could not survive. It only runs the lexer, whose
// cost is linear in a text whose size was checked first.
func guard(src []byte, file string, template bool, r *report) bool {
	start := hcl.Pos{Byte: 0, Line: 1, Column: 1}
	rng := hcl.Range{Filename: file, Start: start, End: start}
	if len(src) > maxFileBytes {
		r.errorf(rng, "split it, or keep large content in files for read()",
			"file has %d bytes, more than the limit of %d", len(src), maxFileBytes)
		return false
	}
	if !utf8.Valid(src) {
		r.errorf(rng, "save it as UTF-8", "file is not valid UTF-8")
		return false
	}
	lex := hclsyntax.LexConfig
	if template {
		lex = hclsyntax.LexTemplate
	}
	tokens, _ := lex(src, file, start) // what the lexer finds wrong, the parser tells too
	g := nesting{frames: []frame{{}}}
	if template {
		g.frames[0].open = hclsyntax.TokenOHeredoc
	}
	for i, tok := range tokens {
		if why := g.next(tok, tokens[i+1:]); why != "" {
			r.errorf(tok.Range, "take it apart with locals", "%s", why)
			return false
		}
	}
	return true
}

// frame is one open bracket: what has piled up in the expression that is being read inside it.
type frame struct {
	open   hclsyntax.TokenType
	pieces int // of a text: its lines, or what the lexer cuts a quoted one into
	ternar int // ? seen since the last separator: the parser recurses into each
	chain  int // operators, dots, indexes since the last separator
}

// nesting follows the depth to which the parser and an evaluation would recurse.
type nesting struct {
	frames []frame
	inner  int // sum of ternar over frames
	quotes int // frames that are quotes or heredocs: what is open inside them counts by itself
	run    int // ! and - in a row
	blocks int // %{if} and %{for} that are open
	melds  int // what maxMelding bounds
}

func (g *nesting) next(tok hclsyntax.Token, rest hclsyntax.Tokens) string {
	top := &g.frames[len(g.frames)-1]
	if tok.Type == hclsyntax.TokenBang || tok.Type == hclsyntax.TokenMinus {
		g.run++
	} else {
		g.run = 0
	}
	switch tok.Type {
	case hclsyntax.TokenOParen, hclsyntax.TokenOBrack, hclsyntax.TokenOBrace,
		hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl,
		hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
		top.chain++
		g.frames = append(g.frames, frame{open: tok.Type})
		if text(tok.Type) {
			g.quotes++
		}
		if tok.Type == hclsyntax.TokenTemplateControl {
			g.directive(rest)
		}
	case hclsyntax.TokenCParen, hclsyntax.TokenCBrack, hclsyntax.TokenCBrace,
		hclsyntax.TokenTemplateSeqEnd, hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
		g.inner -= top.ternar
		if len(g.frames) > 1 {
			if text(top.open) {
				g.quotes--
			}
			g.frames = g.frames[:len(g.frames)-1]
		} else {
			g.frames[0] = frame{open: g.frames[0].open}
		}
	case hclsyntax.TokenComma:
		g.separate(top)
	case hclsyntax.TokenNewline:
		if top.open != hclsyntax.TokenOParen && top.open != hclsyntax.TokenOBrack {
			g.separate(top)
		}
	case hclsyntax.TokenQuestion:
		top.ternar++
		g.inner++
	case hclsyntax.TokenNumberLit:
		if f, err := strconv.ParseFloat(string(tok.Bytes), 64); err != nil || math.IsInf(f, 0) {
			return fmt.Sprintf("number %.20q has an exponent beyond the limit of %d", tok.Bytes, maxNumberExp)
		}
	case hclsyntax.TokenStringLit, hclsyntax.TokenQuotedLit:
		g.melds += 2*top.pieces + 1
		top.pieces++
		if g.melds > maxMelding {
			return fmt.Sprintf("text has more lines than the limit of %d: keep large content in files for read()", int(math.Sqrt(maxMelding)))
		}
	case hclsyntax.TokenIdent, hclsyntax.TokenEqual,
		hclsyntax.TokenComment, hclsyntax.TokenEOF:
	default: // operators, dots, arrows, stars
		top.chain++
		if top.chain > maxChain {
			return fmt.Sprintf("expression has more than the limit of %d operators in a row", maxChain)
		}
	}
	if top.chain > maxChain && !text(top.open) {
		return fmt.Sprintf("expression has more than the limit of %d operators in a row", maxChain)
	}
	if g.depth() > maxNesting {
		return fmt.Sprintf("nesting is deeper than the limit of %d", maxNesting)
	}
	return ""
}

func (g *nesting) depth() int {
	return len(g.frames) - 1 - g.quotes + g.inner + g.run + g.blocks
}

// text reports whether a bracket opens text, whose parts stand side by side.
func text(open hclsyntax.TokenType) bool {
	return open == hclsyntax.TokenOQuote || open == hclsyntax.TokenOHeredoc
}

func (g *nesting) separate(f *frame) {
	g.inner -= f.ternar
	f.ternar, f.chain = 0, 0
}

// directive follows %{if}, %{for} and their ends, which nest without brackets.
func (g *nesting) directive(rest hclsyntax.Tokens) {
	if len(rest) == 0 {
		return
	}
	switch string(rest[0].Bytes) {
	case "if", "for":
		g.blocks++
	case "endif", "endfor":
		g.blocks = max(g.blocks-1, 0)
	}
}
