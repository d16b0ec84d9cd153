// herd-go is the server of herd-mio in the usual style of Go programs: a blocking goroutine for
// each connection, and one mutex for the shared table. It uses only the standard library.
//
//	main.go ──► client.go ──► message.go, times.go, lines.go   parse lines
//	   │            └───────► places.go                        HTTPS to Google Places
//	   ├──────► link.go, proof.go                              the neighbours' protocol
//	   ├──────► herd.go                                        shared by all goroutines: neighbours and records
//	   └──────► log.go
//
// Some parts are left out on purpose: the journal, Google's New API, the time limits of 10 s for a
// line and of 60 s for taking an answer, and the limits on the number of clients, records and
// unproven peers.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// acceptPause is the pause after a failed accept.
	acceptPause = 100 * time.Millisecond
	// stopPatience is the time limit for the clients' last answers when the server stops.
	stopPatience = 5 * time.Second
	// goodbyePatience is the time limit for the goodbyes to the neighbours after that.
	goodbyePatience = time.Second
)

const helpBefore = `One server of a herd, written in Go.

Usage: herd-go NAME --listen HOST:PORT --listen-peers HOST:PORT --log-file FILE [flags]

`

const helpAfter = `
Environment: HERD_SECRET is the secret that the herd's servers share, HERD_PLACES_KEY the key for Google Places.
`

// options is the command line.
type options struct {
	name, listen, listenPeers string
	dial                      []dialled
	accept                    []string
	placesURL, placesCA       string
	logFile, logLevel         string
}

// dialled is a neighbour that this server connects to.
type dialled struct{ name, address string }

// parseOptions parses the command line: the name first, then the flags.
func parseOptions(arguments []string) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("herd-go", flag.ContinueOnError)
	flags.StringVar(&o.listen, "listen", "", "where to listen for clients, `HOST:PORT`; port 0 lets the system choose")
	flags.StringVar(&o.listenPeers, "listen-peers", "", "where to listen for neighbours, `HOST:PORT`")
	flags.Func("dial", "a neighbour that this server connects to, `NAME=HOST:PORT`; may be repeated", func(text string) error {
		name, address, found := strings.Cut(text, "=")
		if !found || !strings.Contains(address, ":") {
			return errors.New("NAME=HOST:PORT is wanted")
		}
		o.dial = append(o.dial, dialled{name, address})
		return checkName(name)
	})
	flags.Func("accept", "a neighbour that connects to this server, `NAME`; may be repeated", func(name string) error {
		o.accept = append(o.accept, name)
		return checkName(name)
	})
	flags.StringVar(&o.placesURL, "places-url", "https://maps.googleapis.com", "whom to ask for places, https://host[:port]")
	flags.StringVar(&o.placesCA, "places-ca", "", "trust the certificate authority in this PEM `FILE`, instead of the system's")
	flags.StringVar(&o.logFile, "log-file", "", "the `FILE` to log into, appending")
	flags.StringVar(&o.logLevel, "log-level", "info", "how much to log: info or warn")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), helpBefore)
		flags.PrintDefaults()
		fmt.Fprint(flags.Output(), helpAfter)
	}
	if len(arguments) > 0 && !strings.HasPrefix(arguments[0], "-") {
		o.name, arguments = arguments[0], arguments[1:]
	}
	if err := flags.Parse(arguments); err != nil {
		return nil, err // The flag package has reported it already.
	}
	return o, o.check(flags)
}

// check returns a mistake in the options that the flag package does not find.
func (o *options) check(flags *flag.FlagSet) error {
	mistake := func() error {
		switch {
		case o.name == "":
			return errors.New("the first argument has to be the server's name")
		case o.listen == "" || o.listenPeers == "" || o.logFile == "":
			return errors.New("--listen, --listen-peers and --log-file are needed")
		case o.logLevel != "info" && o.logLevel != "warn":
			return fmt.Errorf("--log-level %q is neither info nor warn", o.logLevel)
		case flags.NArg() > 0:
			return fmt.Errorf("unexpected argument %q", flags.Arg(0))
		}
		for _, address := range []string{o.listen, o.listenPeers} {
			if _, _, err := net.SplitHostPort(address); err != nil {
				return fmt.Errorf("%q must be HOST:PORT", address)
			}
		}
		seen := map[string]bool{o.name: true}
		for _, name := range append(o.dialledNames(), o.accept...) {
			if seen[name] {
				return fmt.Errorf("%s is named twice", name)
			}
			seen[name] = true
		}
		return checkName(o.name)
	}()
	if mistake != nil {
		fmt.Fprintf(os.Stderr, "herd-go: %v; herd-go --help tells more\n", mistake)
	}
	return mistake
}

func (o *options) dialledNames() (names []string) {
	for _, d := range o.dial {
		names = append(names, d.name)
	}
	return names
}

func checkName(name string) error {
	isOther := func(r rune) bool { return r < '!' || r > '~' }
	if name == "" || name == operator || strings.IndexFunc(name, isOther) >= 0 {
		return fmt.Errorf("a server's name is printable ASCII without spaces, and not %q; %q is none", operator, name)
	}
	return nil
}

func main() {
	o, err := parseOptions(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		os.Exit(2)
	}
	places, err := newPlaces(o.placesURL, o.placesCA, variable("HERD_PLACES_KEY"))
	if err != nil {
		fail(2, err)
	}
	closeLog, err := startLog(o.logFile, o.logLevel == "info")
	if err != nil {
		fail(2, fmt.Errorf("cannot write the log: %w; choose another place with --log-file", err))
	}
	err = serve(o, places)
	closeLog()
	if err != nil {
		fail(1, err)
	}
}

func fail(status int, err error) {
	fmt.Fprintf(os.Stderr, "herd-go: %v\n", err)
	os.Exit(status)
}

// variable returns an environment variable without white space around it.
func variable(name string) string { return strings.TrimSpace(os.Getenv(name)) }

func serve(o *options, places *places) error {
	clientsDoor, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	linksDoor, err := net.Listen("tcp", o.listenPeers)
	if err != nil {
		return err
	}
	server, err := newServer(o, places, []byte(variable("HERD_SECRET")))
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)

	ready := fmt.Sprintf("herd-go %s: clients on %s, neighbours on %s", o.name, clientsDoor.Addr(), linksDoor.Addr())
	logInfo("%s, process %d", ready, os.Getpid())
	fmt.Println(ready)

	var clients, links sync.WaitGroup
	go accept(clientsDoor, &clients, server.serveClient)
	go accept(linksDoor, &links, server.serveLink)
	for _, d := range o.dial {
		links.Add(1)
		go func(d dialled) {
			defer links.Done()
			server.keepDialling(d)
		}(d)
	}

	<-stop
	logInfo("stopping")
	clientsDoor.Close()
	linksDoor.Close()
	// The clients stop first, because their last updates have to reach the neighbours.
	server.stopClients()
	inTime := wait(&clients, stopPatience)
	server.stopLinks()
	inTime = wait(&links, goodbyePatience) && inTime
	if !inTime {
		logInfo("somebody is cut off")
	}
	logInfo("stopped")
	return nil
}

// accept serves each connection in its own goroutine, until the listener is closed.
func accept(door net.Listener, guests *sync.WaitGroup, serve func(*net.TCPConn)) {
	for {
		conn, err := door.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			logWarn("cannot accept connections: %v; trying again in %v", err, acceptPause)
			time.Sleep(acceptPause)
		default:
			guests.Add(1)
			go func() {
				defer guests.Done()
				defer conn.Close()
				serve(conn.(*net.TCPConn))
			}()
		}
	}
}

// wait waits for a group, at most for patience.
func wait(group *sync.WaitGroup, patience time.Duration) bool {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(patience):
		return false
	}
}
