// Command quantity prints test vectors for resource quantities, as apimachinery reads and stores them:
//
//	go run . > ../../../tests/cases/quantity/vectors.json
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"math/big"
	"os"
	"strings"

	"gopkg.in/inf.v0"
	"k8s.io/apimachinery/pkg/api/resource"
)

// vector is one text or raw JSON value and its outcome: either stored and nanos, or an error.
type vector struct {
	Input  string `json:"input"`
	Stored string `json:"stored,omitempty"` // what the API server writes back
	Nanos  string `json:"nanos,omitempty"`  // the exact value in billionths
	Error  string `json:"error,omitempty"`  // "malformed" or "out of range"
	// Server is what the API server stores when Tidegate refuses the input.
	Server string `json:"server,omitempty"`
}

func main() {
	texts := []string{}
	for _, group := range []string{plain, spelling, binary, edges, malformed} {
		texts = append(texts, strings.Fields(group)...)
	}
	texts = append(texts, "", " ", " 1Gi", "1Gi ", "1 Gi", "1\t", "1\n", "١", "１", "1µ", "1,5", "\x00")
	texts = append(texts, "1."+strings.Repeat("0", 60)+"1", "1."+strings.Repeat("0", 60)+"1Gi", strings.Repeat("0", 60)+"7")

	var vectors []vector
	var quantities []resource.Quantity
	seen := map[string]bool{}
	for _, text := range texts {
		if seen[text] {
			log.Fatalf("%q is listed twice", text)
		}
		seen[text] = true
		v := vector{Input: text}
		if _, err := resource.ParseQuantity(text); err != nil {
			v.Error = "malformed"
		} else {
			raw, err := json.Marshal(text)
			check(err)
			v = read(text, raw)
		}
		vectors = append(vectors, v)
		if v.Nanos != "" {
			quantities = append(quantities, resource.MustParse(text))
		}
	}
	checkOrder(quantities)

	var numbers []vector
	for _, raw := range strings.Fields(jsonNumbers) {
		numbers = append(numbers, read(raw, []byte(raw)))
	}

	out := new(bytes.Buffer)
	fmt.Fprintln(out, "{")
	list(out, "texts", vectors)
	fmt.Fprintln(out, ",")
	list(out, "numbers", numbers)
	fmt.Fprintln(out, "\n}")
	_, err := os.Stdout.Write(out.Bytes())
	check(err)
}

// read follows the path of an object through the API server: decode, then encode.
func read(input string, raw []byte) vector {
	var q resource.Quantity
	check(json.Unmarshal(raw, &q))
	// Stored values are parsed and written again on each read: `62.5Ki` becomes `64000` first, then stays `64k`.
	first := encode(q)
	reread := resource.MustParse(first)
	stored := encode(reread)
	if last := encode(resource.MustParse(stored)); last != stored {
		log.Fatalf("%s is %s at first, then %s, then %s", input, first, stored, last)
	}
	nanos := exactNanos(q)
	switch {
	case !strings.ContainsAny(input, "0123456789") && strings.Trim(input, "+-.") == "":
		return vector{Input: input, Error: "malformed", Server: stored}
	case reread.Cmp(q) != 0 || nanos.BitLen() > 127:
		return vector{Input: input, Error: "out of range", Server: stored}
	}
	return vector{Input: input, Stored: stored, Nanos: nanos.String()}
}

func encode(q resource.Quantity) string {
	encoded, err := json.Marshal(q)
	check(err)
	var text string
	check(json.Unmarshal(encoded, &text))
	return text
}

func exactNanos(q resource.Quantity) *big.Int {
	scaled := new(inf.Dec).Mul(q.AsDec(), inf.NewDec(1_000_000_000, 0))
	whole := new(inf.Dec).Round(scaled, 0, inf.RoundExact)
	if whole == nil {
		log.Fatalf("%s is finer than a billionth", q.String())
	}
	return whole.UnscaledBig()
}

// checkOrder checks that comparing nanos gives the same order as comparing quantities.
func checkOrder(quantities []resource.Quantity) {
	for _, left := range quantities {
		for _, right := range quantities {
			if left.Cmp(right) != exactNanos(left.DeepCopy()).Cmp(exactNanos(right.DeepCopy())) {
				log.Fatalf("%s and %s compare differently by value", left.String(), right.String())
			}
		}
	}
}

func list(out *bytes.Buffer, name string, vectors []vector) {
	fmt.Fprintf(out, "  %q: [\n", name)
	for i, v := range vectors {
		line := new(bytes.Buffer)
		encoder := json.NewEncoder(line)
		encoder.SetEscapeHTML(false)
		check(encoder.Encode(v))
		separator := ","
		if i == len(vectors)-1 {
			separator = ""
		}
		fmt.Fprintf(out, "    %s%s\n", bytes.TrimSpace(line.Bytes()), separator)
	}
	fmt.Fprint(out, "  ]")
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

const plain = `
0 1 2 9 10 99 100 999 1000 1001 1500 10000 1000000 1234567 2500000
1n 100n 999n 1000n 1500n 1u 100u 1000u 1m 10m 100m 250m 500m 999m 1000m 1001m 1500m 2000m 1000000m 1234567m
1k 10k 999k 1000k 1500k 1M 128M 1000M 1G 16G 1000G 1T 1P 1E 10E 999E 1500E 1234E 2000k
0.1 0.25 0.5 0.75 1.5 2.50 0.001 0.0001 0.000001 0.000000001 0.1m 1.5m 0.5k 1.5k 1.5G 0.5E 1.1M
-1 -5m -0.5 -1.5 -1000 -1000m -1k -0 -0m -0.0
`

const spelling = `
+1 +5 +0 +5m +1000 +0.5 +.5 .5 -.5 .5k .125 0.125 1.125 1.500 1.000 1.0 1.00 1.0000 -1.125 1.250k 1.125n 5. 5.k 0. -5. 1000.
00 007 0100m 01.5 001.125 000 0000m 0100Ki 00001Ki 0001024Ki
1e0 1e1 1e2 1e3 1e4 1e5 1e6 1e9 1e18 1e21 1E3 1E21 1e+3 1E+3 1e03 1e-0 1e-1 1e-2 1e-3 1e-6 1e-9 1E-3 5e-3 500e-3 1000e-3
12e3 100e1 10e2 1000e3 1.5e3 1.5e6 1.125e3 1.125e6 0.5e1 -1e3 -1.5e-3 .5e3 5.e3 0e0 0e5 0e100 0e-100 0E3 0.0e3
`

const binary = `
1Ki 1Mi 1Gi 1Ti 1Pi 1Ei 200Mi 256Mi 512Mi 1000Mi 1023Mi 1024Mi 1025Mi 1536Mi 2048Mi 64Gi 80Gi 1000Gi 1024Gi 1048576Ki 1000Ki
1.5Ki 1.5Mi 1.5Gi 1.1Ki 1.1Gi 0.5Ki 0.25Ki 0.5Mi 0.5Gi 0.1Gi 0.0001Ki 0.001Ki 0.9765625Ki 1.Gi .5Gi +1Gi +1.5Gi 8Ki 8Gi 0Ki 0.0Ki 0Ei
-1Ki -1.5Gi -0.5Ki -0.0001Ki -1024Mi -1023.5Ki 62.5Ki 62.5Mi 125Ki 1000.5Ki -62.5Ki
7Ei 7.5Ei 8Ei 16Ei -8Ei -16Ei 7.9999999999999999999Ei 8191Pi 8192Pi 8388607Ti 8388608Ti 9007199254740991Ki 9007199254740992Ki
12345678901Ki 123456789012Ki 1234567Gi 12345678Gi 123Ti
`

const edges = `
0.1n 0.5n 1.1n 0.0000000001 1.0000000001 1.0000000009 -0.1n -1.1n -0.0000000001 -.0000000001 1e-10 -1e-10 1e-40 1e-100 -1e-100 0.00001u 1.23456789012345678
0.1e-9 0.0000000000000000001Ei
999999999999999999 1000000000000000000 9223372036854775807 9223372036854775808 -9223372036854775808 18446744073709551615 18446744073709551616
123456789012345678 1234567890123456789 100000000000000000000 12345678901234567m 123456789012345678m 1234567890123456789m 999999999999999999k 9999999999999999999k
123456789012345678901234567890 170141183460469231731687303715.884105727 -170141183460469231731687303715.884105727 170141183460469231731687303715.8841057270 170141183460469231731687303715.884105728
170141183460469231731687303715884105727n 170141183460469231731687303715884105728n
1e20 1e27 1e29 170e27 171e27 2e29 1e30 1e100 0.000000001e38 0.00000000000000000001e40
1000E 1000000E 10000E 1000000000000000000000 999999999999999999999 1000000P 1e3000 99999999999E 9223372036854775807E
Ki Mi Gi Ti Pi Ei -Ki +Mi .Ki .Pi n u m k M E e3 -e3 e-9 e-10 .e-10 E5 - + . -. +.
`

const malformed = `
+-5 -+5 ++5 --5 5- 5+ 1.2.3 1..2 ..1 1.2. 1e 1e+ 1e- 1e1.5 1e3e3 1ee3 1eE3 1Ee 1e3k 1e3Ki 1ke3 1Kie3 1e+-3
1K 1ki 1KI 1kI 1mi 1gi 1g 1t 1p 1GB 1Gb 1GiB 1MB 1mb 1kB 1KB 1B 1b 1i 1ii 1Mii 1mm 1nm 1kk 1KiKi 1Ki1 1k3 1n-5 1Gi+ 1.5.Gi
a abc NaN nan inf Inf Infinity 0x10 0b1 0o7 1_000 1'000 1% 100% $1 1cpu lots true null 1/2 1:2 1h 1s 1Zi 1Yi 1Z 1N 1U (1) "1" ½ ∞ 1Gі
`

const jsonNumbers = `
0 1 2 8 10 1000 1024 1500 1073741824 -1 -0 0.5 0.1 0.25 1.5 2.5 0.125 1.125 -0.5 0.001 1.0 0.0 9223372036854775807 -9223372036854775808 18446744073709551615
`
