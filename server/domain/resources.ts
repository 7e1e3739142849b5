/** What an OAuth token is for (RFC 8707): the URLs of resources. Free of dependencies: clients judge by it too. */

/**
 * Whether a resource is one of those. A URL without a path is the same with a slash (RFC 3986, section 6.2.3), and clients
 * differ in which they send; beyond that nothing is guessed.
 */
export function isAmongResources(resource: string, resources: readonly string[]): boolean {
  if (resources.includes(resource)) return true;
  const wanted = normalized(resource);
  return wanted !== null && resources.some((each) => normalized(each) === wanted);
}

const normalized = (url: string): string | null => (URL.canParse(url) ? new URL(url).href : null);
