package portmap

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a router may say at most, and how long a question may take: some need a second for each.
const (
	maxDescription = 256 << 10
	maxReply       = 64 << 10
	replyTimeout   = 5 * time.Second
)

// The services that map ports, of the UPnP Internet Gateway Device standards, in the order in which they are tried.
func mappingServices() []string {
	return []string{
		"urn:schemas-upnp-org:service:WANIPConnection:2",
		"urn:schemas-upnp-org:service:WANIPConnection:1",
		"urn:schemas-upnp-org:service:WANPPPConnection:1",
	}
}

// Errors of the standards that say what to do else.
const (
	upnpNoSuchEntry   = 714 // nothing is mapped at the outside port
	upnpConflict      = 718 // the outside port is another's
	upnpPermanentOnly = 725 // no mapping with a lifetime
)

// upnp is a router that speaks UPnP.
type upnp struct {
	service string
	control *url.URL
	inside  netip.Addr // this machine's address, as the router sees it
	client  *http.Client
}

// String implements router.
func (u *upnp) String() string { return "UPnP" }

// external implements router.
func (u *upnp) external(ctx context.Context) (netip.Addr, error) {
	reply, err := u.call(ctx, "GetExternalIPAddress")
	if err != nil {
		return netip.Addr{}, err
	}
	ip, err := netip.ParseAddr(strings.TrimSpace(reply["NewExternalIPAddress"]))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("the router's outside address: %w", err)
	}
	return ip.Unmap(), nil
}

// add implements router.
func (u *upnp) add(ctx context.Context, port Port, want uint16, lifetime time.Duration) (uint16, error) {
	ask := func(lifetime time.Duration) error {
		_, err := u.call(ctx, "AddPortMapping",
			"NewRemoteHost", "",
			"NewExternalPort", strconv.Itoa(int(want)),
			"NewProtocol", strings.ToUpper(port.Network),
			"NewInternalPort", strconv.Itoa(int(port.Number)),
			"NewInternalClient", u.inside.String(),
			"NewEnabled", "1",
			"NewPortMappingDescription", "p2p",
			"NewLeaseDuration", strconv.Itoa(int(lifetime/time.Second)),
		)
		return err
	}
	err := ask(lifetime)
	if e, ok := errors.AsType[*upnpError](err); ok {
		switch e.code {
		case upnpPermanentOnly:
			err = ask(0)
		case upnpConflict:
			err = errPortTaken
		}
	}
	return want, err
}

// remove implements router.
func (u *upnp) remove(ctx context.Context, port Port, outside uint16) error {
	_, err := u.call(ctx, "DeletePortMapping",
		"NewRemoteHost", "", "NewExternalPort", strconv.Itoa(int(outside)), "NewProtocol", strings.ToUpper(port.Network))
	if is, ok := errors.AsType[*upnpError](err); ok && is.code == upnpNoSuchEntry {
		return nil
	}
	return err
}

// upnpError is what the router says went wrong.
type upnpError struct {
	code int
	text string
}

// Error implements error.
func (e *upnpError) Error() string {
	return fmt.Sprintf("the router answers with the error %d of UPnP: %q", e.code, e.text)
}

// call calls an action with named arguments, and returns the named values of the reply.
func (u *upnp) call(ctx context.Context, action string, args ...string) (map[string]string, error) {
	var body bytes.Buffer
	body.WriteString(`<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ` +
		`s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:` + action + ` xmlns:u="` + u.service + `">`)
	for i := 0; i < len(args); i += 2 {
		body.WriteString("<" + args[i] + ">")
		_ = xml.EscapeText(&body, []byte(args[i+1])) // a buffer takes all
		body.WriteString("</" + args[i] + ">")
	}
	body.WriteString(`</u:` + action + `></s:Body></s:Envelope>`)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.control.String(), &body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", `text/xml; charset="utf-8"`)
	req.Header["SOAPAction"] = []string{`"` + u.service + "#" + action + `"`} // some routers know this spelling only
	resp, err := u.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	values, err := leaves(io.LimitReader(resp.Body, maxReply))
	switch {
	case values["errorCode"] != "":
		code, _ := strconv.Atoi(strings.TrimSpace(values["errorCode"]))
		return nil, &upnpError{code, values["errorDescription"]}
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the router answers %s", resp.Status)
	default:
		return values, err
	}
}

// leaves returns the text of each element of an XML document that holds nothing else, by its name. Of several with
// one name it is the last.
func leaves(r io.Reader) (map[string]string, error) {
	out := map[string]string{}
	d := newDecoder(r)
	var name, text string
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, fmt.Errorf("the router's answer: %w", err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			name, text = t.Name.Local, ""
		case xml.CharData:
			text += string(t)
		case xml.EndElement:
			if t.Name.Local == name {
				out[name] = text
			}
			name = ""
		}
	}
}

// newDecoder reads what routers write, which is not always what they say it is.
func newDecoder(r io.Reader) *xml.Decoder {
	d := xml.NewDecoder(r)
	d.Strict = false
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	return d
}

// described is a service of a router's description.
type described struct {
	Type    string `xml:"serviceType"`
	Control string `xml:"controlURL"`
}

// describedDevice is a device of a router's description, with those inside it.
type describedDevice struct {
	Services []described       `xml:"serviceList>service"`
	Devices  []describedDevice `xml:"deviceList>device"`
}

// maxNesting bounds how deep a description is looked through. Those of the standards have three levels.
const maxNesting = 8

func (d describedDevice) services(depth int) []described {
	out := d.Services
	if depth == 0 {
		return out
	}
	for _, inner := range d.Devices {
		out = append(out, inner.services(depth-1)...)
	}
	return out
}

// parseDescription returns the service of a description that maps ports, and where it is controlled. The description is
// of a device at location, and so must be the service.
func parseDescription(r io.Reader, location *url.URL) (service string, control *url.URL, err error) {
	var root struct {
		Base   string          `xml:"URLBase"`
		Device describedDevice `xml:"device"`
	}
	if err := newDecoder(r).Decode(&root); err != nil {
		return "", nil, fmt.Errorf("the router's description: %w", err)
	}
	base := location
	if root.Base != "" {
		if base, err = url.Parse(strings.TrimSpace(root.Base)); err != nil {
			return "", nil, fmt.Errorf("the router's description: %w", err)
		}
	}
	services := root.Device.services(maxNesting)
	for _, want := range mappingServices() {
		i := slices.IndexFunc(services, func(s described) bool { return strings.TrimSpace(s.Type) == want })
		if i < 0 {
			continue
		}
		control, err := base.Parse(strings.TrimSpace(services[i].Control))
		if err != nil {
			return "", nil, fmt.Errorf("the router's description: %w", err)
		}
		if control.Hostname() != location.Hostname() || control.Scheme != "http" {
			return "", nil, fmt.Errorf("the router's description leads to %s", control.Redacted())
		}
		return want, control, nil
	}
	return "", nil, errors.New("the router's description has no service that maps ports")
}

// describe asks the device at location what it is.
func describe(ctx context.Context, location *url.URL, inside netip.Addr) (*upnp, error) {
	client := routerClient()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the router answers %s", resp.Status)
	}
	service, control, err := parseDescription(io.LimitReader(resp.Body, maxDescription), location)
	if err != nil {
		return nil, err
	}
	return &upnp{service: service, control: control, inside: inside, client: client}, nil
}

// routerClient talks to a router: never through a proxy, nor to wherever the router would rather be asked.
func routerClient() *http.Client {
	return &http.Client{
		Timeout: replyTimeout,
		Transport: &http.Transport{
			DialContext:       (&net.Dialer{}).DialContext,
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
