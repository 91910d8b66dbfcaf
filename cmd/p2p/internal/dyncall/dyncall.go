// Package dyncall calls a gRPC method that the program was not compiled with: the server describes it by reflection, and
// messages are JSON documents.
package dyncall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jhump/protoreflect/v2/grpcreflect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// A Method is a method as its server describes it.
type Method struct {
	desc  protoreflect.MethodDescriptor
	types Types
}

// Name returns the method's name: "package.Service/Method".
func (m *Method) Name() string {
	return fmt.Sprintf("%s/%s", m.desc.Parent().FullName(), m.desc.Name())
}

// UnknownError tells that a server does not have a service, or a service not a method, and what there is instead.
type UnknownError struct {
	Kind string   // "service" or "method"
	Name string   // what was asked for
	Have []string // what there is, sorted; chosen by the server
}

func (e *UnknownError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("unknown %s %s", e.Kind, e.Name)
	}
	more := ""
	have := e.Have
	if len(have) > 20 {
		have, more = have[:20], fmt.Sprintf(" and %d more", len(have)-20)
	}
	return fmt.Sprintf("unknown %s %s: there is %s%s", e.Kind, e.Name, strings.Join(have, ", "), more)
}

// SplitMethod splits "package.Service/Method", also with a slash or, as a last resort, a dot in front of the method.
func SplitMethod(s string) (service, method string, err error) {
	service, method, ok := strings.Cut(strings.TrimPrefix(s, "/"), "/")
	if !ok {
		i := strings.LastIndexByte(service, '.')
		if i < 0 {
			return "", "", fmt.Errorf("method %q: write package.Service/Method", s)
		}
		service, method = service[:i], service[i+1:]
	}
	if !protoreflect.FullName(service).IsValid() || !protoreflect.Name(method).IsValid() {
		return "", "", fmt.Errorf("method %q: write package.Service/Method", s)
	}
	return service, method, nil
}

// Find asks the server behind cc, which must be one server, for a method. It returns an [*UnknownError] when the server
// does not have it.
func Find(ctx context.Context, cc grpc.ClientConnInterface, service, method string) (*Method, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client := grpcreflect.NewClientAuto(ctx, cc)
	defer client.Reset()
	file, err := client.FileContainingSymbol(protoreflect.FullName(service))
	switch {
	case grpcreflect.IsElementNotFoundError(err):
		return nil, &UnknownError{Kind: "service", Name: service, Have: services(client)}
	case err != nil:
		return nil, err
	}
	desc := find(file, service)
	if desc == nil {
		return nil, &UnknownError{Kind: "service", Name: service, Have: services(client)}
	}
	m := desc.Methods().ByName(protoreflect.Name(method))
	if m == nil {
		return nil, &UnknownError{Kind: "method", Name: service + "/" + method, Have: methods(desc)}
	}
	types, err := newTypes(file)
	if err != nil {
		return nil, err
	}
	return &Method{desc: m, types: types}, nil
}

func find(file protoreflect.FileDescriptor, service string) protoreflect.ServiceDescriptor {
	for i := range file.Services().Len() {
		if s := file.Services().Get(i); s.FullName() == protoreflect.FullName(service) {
			return s
		}
	}
	return nil
}

func services(client *grpcreflect.Client) []string {
	names, err := client.ListServices()
	if err != nil {
		return nil
	}
	var out []string
	for _, n := range names {
		out = append(out, string(n))
	}
	slices.Sort(out)
	return out
}

func methods(desc protoreflect.ServiceDescriptor) []string {
	var out []string
	for i := range desc.Methods().Len() {
		out = append(out, string(desc.Methods().Get(i).Name()))
	}
	slices.Sort(out)
	return out
}

// Answers receives what the server sends. The functions are called from the goroutine of [Method.Call]; each may be nil.
type Answers struct {
	Header  func(metadata.MD)
	Message func(doc []byte) error // an indented JSON document
	Trailer func(metadata.MD)
}

// Call calls the method with the documents that in holds, one message each; a method that takes one message takes
// exactly one. Documents are sent as they are read, and answers are handed over as they come. It returns an
// [*InputError] for a bad document, and otherwise the status of the call.
func (m *Method) Call(ctx context.Context, cc grpc.ClientConnInterface, in io.Reader, out Answers) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	docs := newDocuments(in, m.desc.Input(), m.types)
	var first *dynamicpb.Message
	if !m.desc.IsStreamingClient() {
		var err error
		if first, err = docs.only(); err != nil {
			return err
		}
	}
	stream, err := cc.NewStream(ctx, &grpc.StreamDesc{
		StreamName: string(m.desc.Name()), ClientStreams: m.desc.IsStreamingClient(), ServerStreams: m.desc.IsStreamingServer(),
	}, "/"+m.Name())
	if err != nil {
		return err
	}
	if first != nil {
		err = errors.Join(ignoreEOF(stream.SendMsg(first)), stream.CloseSend())
		if err != nil {
			return err
		}
	} else {
		// It ends when the stream does, or when in returns from its last read.
		go send(stream, docs, cancel)
	}
	err = m.receive(stream, out)
	if bad, ok := errors.AsType[*InputError](context.Cause(ctx)); ok {
		return bad
	}
	return err
}

func send(stream grpc.ClientStream, docs *documents, cancel context.CancelCauseFunc) {
	for {
		msg, err := docs.next()
		switch {
		case errors.Is(err, io.EOF):
			_ = stream.CloseSend()
			return
		case err != nil:
			cancel(err)
			return
		}
		if stream.SendMsg(msg) != nil {
			return // receive gets the reason
		}
	}
}

func (m *Method) receive(stream grpc.ClientStream, out Answers) error {
	if md, err := stream.Header(); err == nil && out.Header != nil {
		out.Header(md)
	}
	for {
		msg := dynamicpb.NewMessage(m.desc.Output())
		if err := stream.RecvMsg(msg); err != nil {
			if out.Trailer != nil {
				out.Trailer(stream.Trailer())
			}
			return ignoreEOF(err)
		}
		if out.Message != nil {
			doc, err := protojson.MarshalOptions{Multiline: true, Resolver: m.types}.Marshal(msg)
			if err != nil {
				return fmt.Errorf("the answer cannot be shown as JSON: %w", err)
			}
			if err := out.Message(append(doc, '\n')); err != nil {
				return err
			}
		}
		if !m.desc.IsStreamingServer() {
			if out.Trailer != nil {
				out.Trailer(stream.Trailer())
			}
			return nil
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
