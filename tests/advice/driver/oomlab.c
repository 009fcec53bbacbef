// SPDX-License-Identifier: GPL-2.0
/* A driver that takes memory and keeps it: how=pages|dma|vmalloc|kmalloc|cache|percpu|holes, mib=N.
 * holes: takes nearly all, gives every second page back, then asks for `blocks` blocks of `order`. */
#include <linux/gfp.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

static char *how = "pages";
module_param(how, charp, 0);
static int mib = 64;
module_param(mib, int, 0);
static int order = 3;
module_param(order, int, 0);
static int blocks = 4000;
module_param(blocks, int, 0);

struct request { u64 payload[128]; };

static noinline int pages(gfp_t flags)
{
	long left = (long)mib << (20 - PAGE_SHIFT);

	while (left-- > 0) {
		if (!alloc_page(flags))
			return -ENOMEM;
		cond_resched();
	}
	return 0;
}

static noinline int holes(void)
{
	LIST_HEAD(even);
	LIST_HEAD(odd);
	struct page *page, *next;
	int failed = 0;

	while ((page = alloc_page(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN))) {
		list_add(&page->lru, page_to_pfn(page) & 1 ? &odd : &even);
		cond_resched();
	}
	list_for_each_entry_safe(page, next, &odd, lru) {
		list_del(&page->lru);
		__free_page(page);
	}
	while (!failed && blocks-- > 0)
		failed = !alloc_pages(GFP_KERNEL, order);
	list_for_each_entry_safe(page, next, &even, lru) {
		list_del(&page->lru);
		__free_page(page);
	}
	return failed ? -ENOMEM : 0;
}

static void fresh(void *request) { } /* a cache with a constructor is not merged with kmalloc's */

static noinline int objects(void)
{
	struct kmem_cache *cache = kmem_cache_create("oomlab_request", sizeof(struct request), 0, 0, fresh);
	long left = (long)mib << 10;

	while (cache && left-- > 0) {
		if (!kmem_cache_alloc(cache, GFP_KERNEL))
			return -ENOMEM;
		cond_resched();
	}
	return cache ? 0 : -ENOMEM;
}

static noinline int small(void)
{
	long left = (long)mib << 8;

	while (left-- > 0) {
		if (!kmalloc(4096, GFP_KERNEL))
			return -ENOMEM;
		cond_resched();
	}
	return 0;
}

static noinline int areas(void)
{
	int left = mib * 64;

	while (left-- > 0) {
		if (!strcmp(how, "vmalloc") && !vmalloc(16 << 10))
			return -ENOMEM;
		if (!strcmp(how, "percpu") && !__alloc_percpu(16 << 10, 64))
			return -ENOMEM;
		cond_resched();
	}
	return 0;
}

static int __init begin(void)
{
	if (!strcmp(how, "pages"))
		return pages(GFP_KERNEL);
	if (!strcmp(how, "dma"))
		return pages(GFP_KERNEL | GFP_DMA);
	if (!strcmp(how, "holes"))
		return holes();
	if (!strcmp(how, "cache"))
		return objects();
	if (!strcmp(how, "kmalloc"))
		return small();
	return areas();
}

static void __exit end(void) { }

module_init(begin);
module_exit(end);
MODULE_LICENSE("GPL");
