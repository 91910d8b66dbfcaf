//go:build linux

package p2p_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lynn9388/p2p/internal/natlab"
)

// TestReadme_AcrossNATs runs the commands of the README's section: two offices, each behind a NAT of its own, and one public
// machine for each of the two parts.
func TestReadme_AcrossNATs(t *testing.T) {
	beside(t)
	lab := natlab.New(t, natlab.Config{Delay: 15 * time.Millisecond})
	s := newSession(t, lab.Public(), true)
	var allowed strings.Builder
	s.left = append(s.left, "p2p id") // for the second office
	for _, home := range []string{"office", "home"} {
		allowed.WriteString(regexp.MustCompile(`(?m)^12D3Koo\w+$`).FindString(s.output("p2p id", home)) + "\n")
	}
	if err := os.WriteFile(filepath.Join(s.dir, "allowed.txt"), []byte(allowed.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	s.vars["RELAY"] = s.begin("p2p run --profile relay --allow allowed.txt", "hub")(`\Ashare: (\S+@\S+:9388)\nopen to: .*allowed.txt`)
	office, home := lab.Router(natlab.PortRestricted).Host(), lab.Router(natlab.Symmetric).Host()
	join := `p2p run --profile wan --join "$RELAY" --allow allowed.txt`
	s.left = append(s.left, join) // for the second office
	s.host = office
	s.begin(join, "office")(`\Ashare: `)
	s.host = home
	s.vars["PEER"] = s.begin(join, "home")(`\Ashare: (\S+@` + regexp.QuoteMeta(s.vars["RELAY"]) + `)\n`)

	s.host = office
	if got := s.output(`p2p peers info "$PEER"`, "office"); !regexp.MustCompile(`(?m)^answers +yes$`).MatchString(got) || !regexp.MustCompile(`(?m)^relay +`).MatchString(got) {
		t.Errorf("peers info: %s", got)
	}
	if got := s.output("p2p peers ls", "office"); !regexp.MustCompile(`(?m)^neighbor +\S+ +` + strings.Split(s.vars["PEER"], "@")[0] + ` +through \S+ +relay `).MatchString(got) {
		t.Errorf("peers ls: %s", got)
	}
	if got := s.output("p2p status", "office"); !regexp.MustCompile(`(?m)^reached +through 1 relay`).MatchString(got) {
		t.Errorf("status: %s", got)
	}

	s.host = lab.Public()
	id := s.begin("go run ./examples/nat -relay relay.example.org", "")(`-join (\S+)@relay.example.org:9388`)
	s.vars["RELAY"] = id + "@" + s.host.IP("eth0").String() + ":9388" // there is no name server
	s.host = home
	s.begin(`go run ./examples/nat -join "$RELAY" -serve`, "")(`listening`)
	s.host = lab.Router(natlab.PortRestricted).Host()
	if got := s.output(`go run ./examples/nat -join "$RELAY"`, ""); strings.Count(got, "Hello Ada, you call ") != 10 {
		t.Errorf("nat: %s", got)
	}
	if len(s.left) > 0 {
		t.Errorf("the README's commands that nothing ran: %q", s.left)
	}
}
