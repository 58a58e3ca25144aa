#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <fcntl.h>
#include <unistd.h>
#include <time.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <string.h>
static double now(){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return t.tv_sec*1e3+t.tv_nsec/1e6;}
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
int main(int c,char**v){long pl[20000];int n=0;FILE*f=fopen("places.txt","r");while(fscanf(f,"%ld",&pl[n])==1)n++;
 double b[8];for(int i=0;i<8;i++)b[i]=1e9;
 for(int r=0;r<40;r++){
  int fd=open(v[1],O_RDONLY);struct stat st;fstat(fd,&st);posix_fadvise(fd,0,0,POSIX_FADV_RANDOM);
  char buf[65536];double t=now();
  for(int i=0;i<n;i++)pread(fd,buf,64,pl[i]);
  t=now()-t;if(t<b[0])b[0]=t;
  t=now();for(int i=0;i<n;i++)pread(fd,buf,4096,pl[i]);t=now()-t;if(t<b[1])b[1]=t;
  for(int adv=0;adv<2;adv++){
  t=now();char*m=mmap(0,st.st_size,PROT_READ,MAP_SHARED,fd,0);if(adv)madvise(m,st.st_size,MADV_RANDOM);
  volatile long s=0;for(int i=0;i<n;i++)s+=m[pl[i]];double t1=now()-t;munmap(m,st.st_size);t=now()-t;if(t<b[2+adv*2]){b[2+adv*2]=t;b[3+adv*2]=t1;}}
  t=now();char*m=mmap(0,st.st_size,PROT_READ,MAP_SHARED|MAP_POPULATE,fd,0);double t1=now()-t;munmap(m,st.st_size);t=now()-t;if(t<b[6]){b[6]=t;b[7]=t1;}
  close(fd);}
 printf("pread64 %.2f pread4096 %.2f mmap %.2f (touch %.2f) mmapRANDOM %.2f (%.2f) populate %.2f (%.2f)\n",b[0],b[1],b[2],b[3],b[4],b[5],b[6],b[7]);
}
