package dyncall

import (
	"errors"

	_ "google.golang.org/genproto/googleapis/rpc/errdetails" // makes the common details of errors known
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Types finds the messages in a google.protobuf.Any, and extensions.
type Types struct{ remote *dynamicpb.Types }

// newTypes knows what a file and those it imports define, and what this program was compiled with.
func newTypes(file protoreflect.FileDescriptor) (Types, error) {
	files := new(protoregistry.Files)
	if err := register(files, file); err != nil {
		return Types{}, err
	}
	return Types{remote: dynamicpb.NewTypes(files)}, nil
}

func register(files *protoregistry.Files, file protoreflect.FileDescriptor) error {
	if _, err := files.FindFileByPath(file.Path()); err == nil {
		return nil
	}
	for i := range file.Imports().Len() {
		if err := register(files, file.Imports().Get(i).FileDescriptor); err != nil {
			return err
		}
	}
	return files.RegisterFile(file)
}

// FindMessageByName implements protoregistry.MessageTypeResolver.
func (t Types) FindMessageByName(name protoreflect.FullName) (protoreflect.MessageType, error) {
	return first(protoregistry.GlobalTypes.FindMessageByName, t.remote.FindMessageByName, name)
}

// FindMessageByURL implements protoregistry.MessageTypeResolver.
func (t Types) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	return first(protoregistry.GlobalTypes.FindMessageByURL, t.remote.FindMessageByURL, url)
}

// FindExtensionByName implements protoregistry.ExtensionTypeResolver.
func (t Types) FindExtensionByName(name protoreflect.FullName) (protoreflect.ExtensionType, error) {
	return first(protoregistry.GlobalTypes.FindExtensionByName, t.remote.FindExtensionByName, name)
}

// FindExtensionByNumber implements protoregistry.ExtensionTypeResolver.
func (t Types) FindExtensionByNumber(message protoreflect.FullName, field protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	find := func(f func(protoreflect.FullName, protoreflect.FieldNumber) (protoreflect.ExtensionType, error)) func(protoreflect.FullName) (protoreflect.ExtensionType, error) {
		return func(m protoreflect.FullName) (protoreflect.ExtensionType, error) { return f(m, field) }
	}
	return first(find(protoregistry.GlobalTypes.FindExtensionByNumber), find(t.remote.FindExtensionByNumber), message)
}

func first[K, T any](a, b func(K) (T, error), key K) (T, error) {
	t, err := a(key)
	if errors.Is(err, protoregistry.NotFound) {
		return b(key)
	}
	return t, err
}
